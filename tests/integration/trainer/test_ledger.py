"""A training says of every row how often it learnt from it, and every row that it learnt from is found by its digest."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.jobs import StepResult
from schemas.ledger import RowsUsed
from schemas.requests import JobRequest
from schemas.row_digest import row_digest
from schemas.row_index import FILE, rows_in
from tests.integration.trainer.test_own_pairs import run_plan, texts

OPTIMISER = {"steps": 5, "batch_size": 4}


def answer(number: int) -> dict[str, Any]:
    return {"prompt": f"Where is parcel {number}?", "completion": "Sorry."}


def label(number: int) -> dict[str, Any]:
    return {**answer(number), "label": bool(number % 2)}


METHODS: dict[str, Any] = {
    "sft": (answer, {"training": {"max_length": 96, "optimiser": OPTIMISER, "precision": "fp32"}}),
    "dpo": (texts, {"preference": {"max_length": 96, "optimiser": OPTIMISER, "precision": "fp32"}}),
    "kto": (label, {"kto": {"max_length": 96, "optimiser": OPTIMISER, "precision": "fp32"}}),
    "reward": (texts, {"reward": {"max_length": 96, "optimiser": OPTIMISER, "precision": "fp32"}}),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_ledger_counts_every_batch_and_leads_back_to_the_rows_as_they_were_given(
    tmp_path: Path, base: Path, method: str
) -> None:
    form, settings = METHODS[method]
    rows = [form(number) for number in range(9)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"test": None, "test_fraction": 0, "validation_fraction": 0}
    steps = [
        {"name": "prepare", "kind": "prepare"},
        {"name": "train", "kind": "train", **_method(method), "inputs": {_reads(method): f"prepare.{_reads(method)}"}},
    ]
    request = {
        "job_id": "job", "requester": "test", "pipeline": steps, "base_model": str(base), "register_as": "m",
        "dataset": {"reference": str(tmp_path / "all.jsonl"), "split": split}, **settings,
    }  # fmt: skip
    results = run_plan(tmp_path, JobRequest.model_validate(request))
    used, index = ledger(results["train"]), Path(results["prepare"].outputs["row_index"].uri) / FILE
    found = {row_digest(row): rows_in(index, row_digest(row)) for row in rows}
    assert all(len(places) == 1 for places in found.values())
    times = [used.times(place.id) for (place,) in found.values()]
    assert sum(times) == OPTIMISER["steps"] * OPTIMISER["batch_size"]
    assert max(times) - min(times) <= 1


def ledger(result: StepResult) -> RowsUsed:
    return RowsUsed.model_validate_json((Path(result.outputs["rows_used"].uri) / RowsUsed.FILE).read_bytes())


def _method(name: str) -> dict[str, str]:
    return {"method" if name in ("sft", "dpo") else "algorithm": name}


def _reads(name: str) -> str:
    return "dataset" if name == "sft" else "preferences"
