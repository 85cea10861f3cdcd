"""A finished job made by hand, as the topics and artifacts would tell it."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from schemas.artifacts import ArtifactRef
from schemas.jobs import FeedbackRecorded, JobCompleted, StepResult
from schemas.models import Lineage, ModelPromoted, ModelRegistered
from services.demo.dataset import splits
from services.demo.observed_job import ObservedJob, ObservedStep
from services.demo.recipe import Pipeline

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
_STEPS = {
    "rlaif": {
        "prepare": 6, "evaluate-base": 95, "score-base": 9, "train": 340, "evaluate-sft": 60, "score-sft": 8, "sample": 110,
        "label": 31, "align": 160, "evaluate": 61, "score": 9, "register": 2,
    },
    "sft": {"prepare": 6, "evaluate-base": 95, "train": 340, "evaluate": 60, "register": 2},
}  # fmt: skip
_METRICS = {
    "evaluate-base": {"valid_json": 0.0111, "exact_match": 0.0, "good_reply": 0.0},
    "score-base": {"judge": None},
    "evaluate-sft": {"valid_json": 1.0, "exact_match": 0.93333333, "good_reply": 0.3944},
    "score-sft": {"judge": -0.2214},
    "evaluate": {
        "valid_json": 1.0, "exact_match": 0.9222, "good_reply": 0.8611, "good_reply_low": 0.8, "good_reply_high": 0.91111,
    },
    "score": {"judge": 0.1309},
}  # fmt: skip
_REPLIES = {
    "evaluate-base": "Dear customer, I am a language model and it is my pleasure. " * 12,
    "evaluate-sft": "Someone may look at it at some point.",
    "evaluate": "Sorry for the trouble. We will check the payment for your ITEM and email you the result.",
}


def artifact(folder: Path) -> ArtifactRef:
    return ArtifactRef(uri=str(folder), sha256="ab" * 32, size=1)


def finished(pipeline: Pipeline, folder: Path, *, hostile: str = "") -> ObservedJob:
    """Return a completed job with artifacts under `folder`; `hostile` is put into every foreign text."""
    time, steps = START, {}
    for name, seconds in _STEPS[pipeline].items():
        place = folder / name
        place.mkdir(parents=True)
        outputs = {}
        if name.startswith("evaluate"):
            outputs = {"predictions": artifact(place)}
            _predictions(place, name, hostile)
        if name in ("train", "align"):
            outputs = {"adapter": artifact(place)}
            _curve(place, 110 if name == "train" else 14)
        result = StepResult(outputs=outputs, metrics=_METRICS.get(name, {}))
        begun, time = time, time + timedelta(seconds=seconds)
        steps[name] = ObservedStep(name, name.split("-")[0], "done", 1, begun, time, None, result)
    lineage = Lineage(
        job_id="demo-1",
        step="register",
        requester="r",
        base_model="b",
        base_model_sha256=None,
        dataset_sha256=None,
        results={},
    )
    job = ObservedJob(
        job_id="demo-1" + hostile,
        steps=steps,
        requested=START,
        ended=time + timedelta(seconds=3),
        outcome="completed",
        alias="candidate",
        completed=JobCompleted(job_id="demo-1", model="support-router", version="1.0.0"),
        registered=ModelRegistered(
            model="support-router" + hostile, version="1.0.0", artifact=artifact(folder), lineage=lineage, metrics={}
        ),
        promoted=ModelPromoted(model="support-router", alias="candidate", version="1.0.0", previous=None),
        counts={"neuroweaver.requests": 1, "neuroweaver.jobs": 40, "neuroweaver.progress": 620, "neuroweaver.models": 2},
    )
    if pipeline == "rlaif":
        feedback = FeedbackRecorded(
            job_id="demo-1", step="label", attempt=1, kind="label", judge="local/likelihood:SmolLM2" + hostile, candidates=448,
            comparisons=672, pairs=101, ties=11, invalid=2, agreement=0.91, position_consistency=None, longer_preferred=0.83,
        )  # fmt: skip
        job = replace(job, feedback=feedback)
    return job


def _curve(folder: Path, steps: int) -> None:
    rows = [
        {
            "step": step,
            "loss": 0.35 + 2.9 * math.exp(-step / (steps / 6)) + 0.08 * math.sin(step * 2.3),
            "learning_rate": 1e-3,
        }
        for step in range(1, steps + 1)
    ]
    (folder / "curve.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"step": steps, "eval_loss": 0.5}])
    )


def _predictions(folder: Path, step: str, hostile: str) -> None:
    rows = []
    for number, row in enumerate(splits()["test"]):
        reply = _REPLIES[step].replace("ITEM", row["item"]) + hostile
        answer = reply
        if step != "evaluate-base":
            answer = json.dumps({"queue": row["queue"], "priority": "low", "reply": reply})
        columns = {name: str(value) + hostile for name, value in row.items()}
        rows.append(
            {"id": str(number), "columns": columns, "reference": row["answer"], "greedy": answer, "samples": [answer] * 2}
        )
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
