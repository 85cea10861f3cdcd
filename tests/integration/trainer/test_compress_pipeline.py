"""The requests of the how-to about compression do what it says, from the data set to the version that the registry would make."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.models import ModelRegistered
from schemas.requests import JobRequest
from schemas.steps import PlannedStep, RegisterSettings
from services.orchestrator.domain.planning import plan
from services.registry.register import _examine, _wanted
from tests.integration.trainer.test_own_pairs import output_of, run_plan
from tests.steps import request as requested

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "compress-a-model.md"
FILES = dict(re.findall(r"```json file=(\S+)\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL))


def job_of(home: Path, base: Path, name: str) -> JobRequest:
    rows = [{"prompt": f"colour {number}?", "completion": "red." if number % 2 else "blue."} for number in range(40)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = json.loads(FILES[name])
    given["dataset"]["reference"], given["base_model"] = str(home / "rows.jsonl"), str(base)
    given["training"]["precision"] = "fp32"
    given["training"]["optimiser"]["steps"] = 12
    given["evaluation"] |= {"precision": "fp32", "max_new_tokens": 3, "samples": 1}
    return JobRequest.model_validate(given)


def registered(home: Path, job: JobRequest, results: dict[str, StepResult]) -> ModelRegistered:
    """Return what the registry makes of the job's last step, after it has examined the files."""
    steps = {step.name: step for step in plan(job)}
    read = {name: result.model_copy(update={"inputs": digests(steps[name], results)}) for name, result in results.items()}
    step = steps["register"]
    assert isinstance(step.settings, RegisterSettings)
    inputs = {name: output_of(results, binding) for name, binding in step.inputs.items()}
    asked = requested("job", "register", kind="register", settings=step.settings, inputs=inputs, results=read)
    recipe = _examine(str(home / "artifacts"), "model", inputs["model"], home / "cache")
    return _wanted(asked, step.settings, "model", recipe)


def digests(step: PlannedStep, results: dict[str, StepResult]) -> dict[str, str]:
    return {name: output_of(results, binding).sha256 for name, binding in step.inputs.items()}


def test_an_adapter_is_merged_evaluated_and_registered_beside_the_metrics_of_its_parent(tmp_path: Path, base: Path) -> None:
    job = job_of(tmp_path, base, "merge-job.json")
    results = run_plan(tmp_path, job)
    made = registered(tmp_path, job, results)
    assert (made.kind, made.artifact) == ("model", results["merge"].outputs["model"])
    assert made.parent == results["train"].outputs["adapter"]
    metrics: Any = made.metrics
    assert metrics["loss"] == pytest.approx(made.parent_metrics["loss"], abs=0.01)
    assert {"size_bytes", "parent_size_bytes", "tokens_per_second", "parent_tokens_per_second"} <= metrics.keys()
    assert made.lineage.configuration["method"] == "sft"
    assert made.lineage.configuration["compressions"]


def test_a_pruned_base_model_recovers_by_training_and_is_registered_smaller(tmp_path: Path, base: Path) -> None:
    job = job_of(tmp_path, base, "prune-job.json")
    results = run_plan(tmp_path, job)
    made = registered(tmp_path, job, results)
    loss: dict[str, Any] = {name: results[name].metrics["loss"] for name in ("evaluate-pruned", "evaluate")}
    assert loss["evaluate"] < loss["evaluate-pruned"]
    size: Any = results["prune"].metrics["parent_size_bytes"]
    assert (made.metrics["size_bytes"] or 0) < size
    assert made.parent == results["recover"].outputs["adapter"]


def test_the_other_steps_of_the_page_are_ones_that_can_be_planned(tmp_path: Path, base: Path) -> None:
    job = json.loads(FILES["merge-job.json"])
    steps = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)]
    planned = plan(JobRequest.model_validate({**job, "pipeline": [*job["pipeline"], *steps]}))
    assert {step.name for step in planned} >= {"small", "file"}


def test_what_compress_stores_is_what_the_registry_takes(tmp_path: Path, base: Path) -> None:
    """Also the file for llama.cpp, and nothing that could hold code."""
    from services.registry.register import RegistrationRefused
    from tests.compression import compressed, made_adapter
    from tests.trainer import put_lines

    adapter = made_adapter(tmp_path, base)
    made: ArtifactRef = compressed(tmp_path, base, {"adapter": adapter}, method="gguf").outputs["model"]
    assert _examine(str(tmp_path / "artifacts"), "model", made, tmp_path / "cache")["compressions"]
    with pytest.raises(RegistrationRefused, match="missing"):
        _examine(str(tmp_path / "artifacts"), "model", put_lines(tmp_path, rows=[]), tmp_path / "cache")
