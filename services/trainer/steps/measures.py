"""Computes the evaluation metrics of answers, as pure functions of texts: valid JSON, exact match, rules kept."""

from collections.abc import Iterable, Mapping, Sequence

from schemas.answers import field_text, json_object
from schemas.lines import Prediction
from schemas.rules import Rule, failures


def valid_json(predictions: Sequence[Prediction]) -> float:
    """Return the share of greedy answers that are one JSON object and nothing else."""
    return _share(json_object(row.greedy) is not None for row in predictions)


def exact_match(predictions: Sequence[Prediction], fields: Sequence[str]) -> float | None:
    """Return the share of greedy answers that equal the reference in all `fields`, or as a whole if no field is named.

    A row whose reference lacks one of the fields does not count; None if no row counts.
    """
    if not fields:
        return _share(row.greedy.strip() == row.reference.strip() for row in predictions)
    wanted = [
        (row, known) for row in predictions if (known := json_object(row.reference)) and all(f in known for f in fields)
    ]
    if not wanted:
        return None
    return _share(_agrees(row.greedy, known, fields) for row, known in wanted)


def _agrees(answer: str, reference: Mapping[str, object], fields: Sequence[str]) -> bool:
    found = json_object(answer)
    return found is not None and all(name in found and found[name] == reference[name] for name in fields)


def good_reply(predictions: Sequence[Prediction], rules: Sequence[Rule], field: str | None) -> float | None:
    """Return the share of sampled answers whose `field` keeps all rules; an answer without a readable field counts as not
    good."""
    return _share(_keeps(answer, rules, field, row.columns) for row in predictions for answer in row.samples)


def _keeps(answer: str, rules: Sequence[Rule], field: str | None, columns: Mapping[str, str]) -> bool:
    text = field_text(answer, field)
    return text is not None and not failures(rules, text, columns)


def _share(verdicts: Iterable[bool]) -> float:
    known = list(verdicts)
    return sum(known) / len(known) if known else 0.0
