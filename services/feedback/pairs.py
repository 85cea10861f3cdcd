"""Chooses the comparisons that become preference pairs, and forms their two answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from schemas.answers import json_object
from services.feedback.comparisons import Comparison, Verdict

_STYLES: tuple[tuple[tuple[str, str], int | None], ...] = (
    ((",", ":"), None),
    ((", ", ": "), None),
    ((",", ": "), 2),
    ((",", ": "), 4),
)
"""Separators and indentation that are common in JSON."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Two candidates of one prompt, by their indexes in `CandidateGroup.candidates`."""

    chosen: int
    rejected: int


def choose(scores: Sequence[float | None], comparisons: Sequence[Comparison], margin: float, at_most: int) -> list[Choice]:
    """The decided comparisons with the largest differences of scores, largest first: the best against the worst.

    A comparing judge must have decided the pair itself; its scores (mean preferences) only determine the order of pairs.
    """
    found: list[tuple[float, Choice]] = []
    for comparison in comparisons:
        match comparison.verdict(margin):
            case Verdict.FIRST:
                choice = Choice(comparison.first, comparison.second)
            case Verdict.SECOND:
                choice = Choice(comparison.second, comparison.first)
            case _:
                continue
        found.append(((scores[choice.chosen] or 0.0) - (scores[choice.rejected] or 0.0), choice))
    found.sort(key=lambda item: -item[0])
    return [choice for _, choice in found[:at_most]]


def answers(chosen: str, rejected: str, equal_fields: Sequence[str]) -> tuple[str, str]:
    """Both answers of a pair, with the chosen answer's values in `equal_fields`, so that only the rest differs.

    Both have the chosen answer's key order and layout, so that these carry no signal either. An answer in an uncommon
    layout is written compactly. Both answers must be JSON objects with these fields.
    """
    if not equal_fields:
        return chosen, rejected
    better, worse = json_object(chosen), json_object(rejected)
    if better is None or worse is None:
        raise ValueError(f"no JSON object to keep {', '.join(equal_fields)} equal in: {chosen!r}, {rejected!r}")
    mended = {name: better[name] if name in equal_fields else worse[name] for name in better if name in worse}
    mended |= {name: value for name, value in worse.items() if name not in mended}
    return _written_like(chosen, better), _written_like(chosen, mended)


def _written_like(example: str, value: dict[str, JsonValue]) -> str:
    for separators, indent in _STYLES:
        for ascii_only in (False, True):
            if _dump(json_object(example), separators, indent, ascii_only) == example.strip():
                return _dump(value, separators, indent, ascii_only)
    return _dump(value, *_STYLES[0], False)


def _dump(value: JsonValue, separators: tuple[str, str], indent: int | None, ascii_only: bool) -> str:
    return json.dumps(value, separators=separators, indent=indent, ensure_ascii=ascii_only)
