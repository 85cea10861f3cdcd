"""Reads from the artifacts what the events lack: the loss curve, and the model's answers before and after training."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.artifacts import ArtifactRef
from schemas.lines import CURVE_FILE, Prediction
from schemas.results import ADAPTER, PREDICTIONS
from schemas.rules import failures
from services.demo.constitution import RULES
from services.demo.observed_job import ObservedJob
from services.demo.recipe import Pipeline
from services.demo.report import STAGES, TRAINING

Fetch = Callable[[ArtifactRef], Path]
"""Returns the local, verified folder of an artifact."""


@dataclass(frozen=True)
class Curve:
    """The training loss of one step of the pipeline."""

    step: str
    title: str
    points: tuple[tuple[int, float], ...]
    """Optimiser step and loss."""


@dataclass(frozen=True)
class SampledAnswer:
    """One sampled answer of one stage, with the result of the rules."""

    stage: str
    text: str
    reply: str | None
    """Its reply; None if the text is not a JSON object with a text in `reply`."""
    routed: bool
    """Whether queue and priority are correct."""
    broken: tuple[str, ...]
    """Names of the rules that the reply breaks."""


@dataclass(frozen=True)
class HeldOutExample:
    """A held-out request with the answers of every stage."""

    request: str
    queue: str
    priority: str
    answers: tuple[SampledAnswer, ...]


@dataclass(frozen=True)
class ArtifactFindings:
    """What the artifacts of a job contain for the report."""

    rows: int
    """Number of held-out rows that were evaluated."""
    curves: tuple[Curve, ...]
    examples: tuple[HeldOutExample, ...]


def findings(job: ObservedJob, pipeline: Pipeline, fetch: Fetch, examples: int = 6) -> ArtifactFindings:
    """Read the artifacts of a completed job; the examples are the first held-out rows, not selected ones."""
    predictions = {}
    for stage, (step, _) in STAGES[pipeline].items():
        if folder := _output(job, step, PREDICTIONS, fetch):
            predictions[stage] = list(_lines(folder / Prediction.FILE))
    rows = max(map(len, predictions.values()), default=0)
    first = next(iter(predictions.values()), [])[:examples]
    curves = [
        _curve(step, title, folder) for step, title in TRAINING.items() if (folder := _output(job, step, ADAPTER, fetch))
    ]
    return ArtifactFindings(rows, tuple(curves), tuple(_example(row, predictions) for row in first))


def _output(job: ObservedJob, step: str, name: str, fetch: Fetch) -> Path | None:
    result = job.result(step)
    return fetch(result.outputs[name]) if result and name in result.outputs else None


def _lines(file: Path) -> Iterator[dict[str, object]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _curve(step: str, title: str, folder: Path) -> Curve:
    points = [
        (number, float(loss))
        for row in _lines(folder / CURVE_FILE)
        if isinstance(number := row.get("step"), int) and isinstance(loss := row.get("loss"), int | float)
    ]
    return Curve(step, title, tuple(points))


def _example(row: dict[str, object], predictions: dict[str, list[dict[str, object]]]) -> HeldOutExample:
    columns = _columns(row)
    answers = [
        _answer(stage, text, columns)
        for stage, found in predictions.items()
        for same in found
        if same["id"] == row["id"] and (text := _sample(same)) is not None
    ]
    return HeldOutExample(columns.get("request", ""), columns.get("queue", ""), columns.get("priority", ""), tuple(answers))


def _columns(row: dict[str, object]) -> dict[str, str]:
    columns = row.get("columns")
    return {str(name): str(value) for name, value in columns.items()} if isinstance(columns, dict) else {}


def _sample(row: dict[str, object]) -> str | None:
    samples = row.get("samples")
    if isinstance(samples, Sequence) and not isinstance(samples, str) and samples:
        return str(samples[0])
    greedy = row.get("greedy")
    return None if greedy is None else str(greedy)


def _answer(stage: str, text: str, columns: dict[str, str]) -> SampledAnswer:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    answer = found if isinstance(found, dict) else {}
    reply = answer.get("reply")
    if not isinstance(reply, str):
        return SampledAnswer(stage, text, None, routed=False, broken=())
    routed = all(answer.get(name) == columns.get(name) for name in ("queue", "priority"))
    return SampledAnswer(stage, text, reply, routed, tuple(failures(RULES, reply, columns)))
