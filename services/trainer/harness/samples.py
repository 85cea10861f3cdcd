"""Takes from the rows of a task what a report shows of them: the prompt, what was expected, and what the model answered. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from schemas.lines import TaskSample

_SHOWN = 3
"""Rows of each task; its file has all of them."""


def shown_samples(task: str, rows: Sequence[Mapping[str, Any]]) -> list[TaskSample]:
    """Return the first rows of a task as its first filter reads them; none of a task that scores whole texts."""
    return list(islice(_samples(task, rows), _SHOWN))


def _samples(task: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[TaskSample]:
    for row in rows:
        asked = [arguments for arguments in row["arguments"] if len(arguments) > 1]
        if asked and isinstance(asked[0][1], Mapping):
            yield _generated(task, row, asked[0][0])
        elif asked:
            yield _scored(task, row)


def _generated(task: str, row: Mapping[str, Any], prompt: str) -> TaskSample:
    answers, read = tuple(map(str, row["resps"][0])), str(row["filtered_resps"][0])
    return TaskSample(
        task=task, row=row["doc_id"], prompt=prompt, expected=str(row["target"]), answers=answers,
        read=None if answers[0] == read else read,
    )  # fmt: skip


def _scored(task: str, row: Mapping[str, Any]) -> TaskSample:
    """A row whose answers are given and scored. Where only the prompts differ, as of Winogrande, these are the choices; one without
    a prompt only weighs another."""
    scored = [(*pair[:2], float(said[0])) for pair, said in zip(row["arguments"], row["filtered_resps"], strict=True)]
    scored = [one for one in scored if one[0]] or scored
    prompts, endings = {prompt for prompt, _, _ in scored}, {ending for _, ending, _ in scored}
    choices = [prompt if len(prompts) > 1 and len(endings) == 1 else ending for prompt, ending, _ in scored]
    target = row["target"]
    right = choices[target] if type(target) is int and 0 <= target < len(choices) else str(target)
    return TaskSample(
        task=task, row=row["doc_id"], prompt=scored[0][0], expected=right, answers=tuple(choices),
        scores=tuple(score if math.isfinite(score) else None for *_, score in scored),
    )  # fmt: skip
