"""Reads from the artifacts that a step made what its report shows: curves, notes about its rows, and samples."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import fsspec

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.lines import CURVE_FILE, Candidates, Judged, Message, Prediction, Preference, Row, TaskSample, split_file
from services.chassis.reports.chart import Points
from services.chassis.reports.sections import TEXT_LIMIT
from services.chassis.reports.texts import ending

_SAMPLES = 8
_TASK_SAMPLES = 24
"""Of all tasks of the harness, each of which has a few."""
_ANSWERS = 4
"""The most answers to one prompt that are shown."""
_CURVE_POINTS = 1_000_000


@dataclass(frozen=True)
class Sample:
    """One row, with its texts by their meaning."""

    prompt: str
    texts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Contents:
    """What the artifacts of a step contain."""

    curves: Mapping[str, Points] = field(default_factory=dict)
    """Measured values by optimiser step, by name."""
    notes: Sequence[str] = ()
    """What was noticed about rows, in words."""
    samples: Sequence[Sample] = ()


def contents(result: StepResult) -> Contents:
    """Return what the outputs of `result` contain; the first rows are the samples, not selected ones."""
    curves: dict[str, list[tuple[float, float]]] = {}
    notes: list[str] = []
    samples: list[Sample] = []
    for ref in result.outputs.values():
        for point in islice(_lines(ref, CURVE_FILE), _CURVE_POINTS):
            _add(curves, point)
        notes += _notes(ref)
        for file, sample in _SHOWN.items():
            most = _TASK_SAMPLES if file == TaskSample.FILE else _SAMPLES
            samples += [sample(line) for line in islice(_lines(ref, file), most)]
    return Contents(curves, notes, samples)


def _add(curves: dict[str, list[tuple[float, float]]], point: Mapping[str, Any]) -> None:
    step = point.get("step")
    for name, value in point.items():
        if name != "step" and isinstance(step, int) and isinstance(value, int | float):
            curves.setdefault(name, []).append((float(step), float(value)))


def _notes(ref: ArtifactRef) -> list[str]:
    described = next(_lines(ref, "dataset.json", whole=True), {})
    notes = described.get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _row(line: Mapping[str, Any]) -> Sample:
    row = Row.model_validate(line)
    return Sample(_said(row.messages), [("answer", row.completion)] if row.answered else [])


def _prediction(line: Mapping[str, Any]) -> Sample:
    row = Prediction.model_validate(line)
    sampled = [(f"sample {number}", text) for number, text in enumerate(row.samples[: _ANSWERS - 1], 1)]
    return Sample(_said(row.messages), [("reference", row.reference), ("greedy answer", row.greedy), *sampled])


def _task(line: Mapping[str, Any]) -> Sample:
    row = TaskSample.model_validate(line)
    answers = islice(
        _choices(row) if row.scores else ((f"answer {number}", text) for number, text in enumerate(row.answers, 1)),
        _ANSWERS,
    )
    read = [] if row.read is None else [("read as", row.read)]
    prompt = f"{row.task}, row {row.row}\n{ending(row.prompt, TEXT_LIMIT // 2)}"
    return Sample(prompt, [("expected", row.expected), *answers, *read])


def _choices(row: TaskSample) -> Iterator[tuple[str, str]]:
    best = max((score for score in row.scores if score is not None), default=None)
    for text, score in zip(row.answers, row.scores, strict=True):
        told = "" if score is None else f", log-probability {score:.2f}"
        yield ("choice" if score is None or score != best else "most likely choice") + told, text


def _candidates(line: Mapping[str, Any]) -> Sample:
    row = Candidates.model_validate(line)
    return Sample(
        _said(row.messages), [(f"candidate {number}", text) for number, text in enumerate(row.candidates[:_ANSWERS], 1)]
    )


def _preference(line: Mapping[str, Any]) -> Sample:
    row = Preference.model_validate(line)
    sides = (("chosen", row.chosen, row.chosen_score), ("rejected", row.rejected, row.rejected_score))
    return Sample(
        _said(row.messages), [(name if score is None else f"{name}, {score:+.2f}", text) for name, text, score in sides]
    )


def _judged(line: Mapping[str, Any]) -> Sample:
    row = Judged.model_validate(line)
    return Sample(_said(row.messages), [("wanted answer" if row.label else "unwanted answer", row.completion)])


_SHOWN: Mapping[str, Callable[[Mapping[str, Any]], Sample]] = {
    split_file("train"): _row,
    Prediction.FILE: _prediction,
    TaskSample.FILE: _task,
    Candidates.FILE: _candidates,
    Preference.FILE: _preference,
    Judged.FILE: _judged,
}
"""How a line of each file becomes a sample."""


def _said(messages: Sequence[Message]) -> str:
    """Return the last turn of a chat, which is answered."""
    return messages[-1].content if messages else ""


def _lines(ref: ArtifactRef, name: str, *, whole: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file, one per line or the `whole` file as one; nothing if the artifact has no such file."""
    fs, root = fsspec.url_to_fs(ref.uri)
    try:
        file = fs.open(f"{str(root).rstrip('/')}/{name}", "rt", encoding="utf-8")
    except FileNotFoundError:
        return
    with file:
        for text in [file.read()] if whole else file:
            value = json.loads(text)
            if isinstance(value, dict):
                yield value
