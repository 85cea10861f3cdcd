"""Decides what the gates of an alias say of a version: passed, failed, or inconclusive where the evidence does not suffice."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from schemas.gates import AT_LEAST, AT_MOST, FAILED, INCONCLUSIVE, PASSED, Gate, GateVerdict
from schemas.metrics import HARNESS, Metric, difference, harness_task, paired, rows_measured
from schemas.models import ModelRegistered

_AGREEMENT = "agreement"
"""The metric of label steps that says how often the judge agreed with the rules."""


class Measured(NamedTuple):
    """What is known of one metric of a version."""

    metric: Metric
    rows: float | None
    protocol: frozenset[str]
    """What it was measured on; empty if that is not known. Only metrics with one protocol can be compared."""


class Margin(NamedTuple):
    """By how much a version meets a gate, below 0 by how much it misses it; with the interval where that is known."""

    value: float
    bounds: tuple[float, float] | None


def checked(
    gates: Iterable[Gate], version: ModelRegistered, holder: ModelRegistered | None
) -> tuple[str, tuple[GateVerdict, ...]]:
    """Return the verdict of all gates about `version`, and of each; `holder` is the version that the alias names."""
    verdicts = tuple(verdict_of(gate, version, holder) for gate in gates)
    return joint(one.verdict for one in verdicts), verdicts


def joint(verdicts: Iterable[str]) -> str:
    """Return the verdict of several together: failed if one failed, else inconclusive if one is, else passed."""
    found = set(verdicts)
    return next((verdict for verdict in (FAILED, INCONCLUSIVE) if verdict in found), PASSED)


def verdict_of(gate: Gate, version: ModelRegistered, holder: ModelRegistered | None) -> GateVerdict:
    """Return what one gate says of `version`."""
    now, agreement = measured(gate.metric, version), agreement_of(version)
    before = measured(gate.metric, holder) if holder and gate.worse_by is not None else None
    doubt = _doubt(gate, now, before, agreement)
    margin = None if doubt else margin_of(gate, now.metric, before and before.metric)
    if margin is None or (margin.bounds is None and gate.interval):
        verdict, why = INCONCLUSIVE, doubt or "a confidence interval is needed, and none is known"
    else:
        verdict, why = _compared(margin)
    low, high = now.metric.bounds or (None, None)
    holder_low, holder_high = (before and before.metric.bounds) or (None, None)
    return GateVerdict(
        gate=gate, verdict=verdict, why=why, value=now.metric.value, low=low, high=high, rows=now.rows, agreement=agreement,
        holder_value=before and before.metric.value, holder_low=holder_low, holder_high=holder_high,
    )  # fmt: skip


def measured(name: str, version: ModelRegistered) -> Measured:
    """Return what is known of a metric of a version; a value that is no number is not known."""
    found = next((one for one in paired(version.metrics) if one.name == name), Metric(name, None, None))
    if found.value is None or not math.isfinite(found.value):
        found = Metric(name, None, None)
    if found.bounds and not all(map(math.isfinite, found.bounds)):
        found = found._replace(bounds=None)
    return Measured(found, rows_measured(name, version.metrics), _protocol(name, version))


def agreement_of(version: ModelRegistered) -> float | None:
    """Return the least agreement of the judge with the rules in the label steps of the version's job; None if there is none."""
    found = (result.metrics.get(_AGREEMENT) for result in version.lineage.results.values())
    return min((share for share in found if share is not None), default=None)


def margin_of(gate: Gate, now: Metric, before: Metric | None) -> Margin | None:
    """Return by how much the metric meets the gate; None if there is nothing to compare or the comparison is not known."""
    if now.value is None or gate.comparison not in (AT_LEAST, AT_MOST):
        return None
    more_is_better = gate.comparison == AT_LEAST
    ours = now if more_is_better else _negative(now)
    if gate.threshold is not None:
        return _shifted(ours, -gate.threshold if more_is_better else gate.threshold)
    if before is None or gate.worse_by is None:
        return None
    return _shifted(difference(before if more_is_better else _negative(before), ours), gate.worse_by)


def _doubt(gate: Gate, now: Measured, before: Measured | None, agreement: float | None) -> str | None:
    """Why the gate cannot be decided, whatever the values are; None if it can."""
    if now.metric.value is None:
        return "the version has no such metric, or it was not measurable"
    if gate.rows is not None and (now.rows is None or now.rows < gate.rows):
        return f"it was measured on {_number(now.rows)} rows, and {gate.rows} are needed"
    if gate.agreement is not None and (agreement is None or agreement < gate.agreement):
        return f"the judge's agreement with the rules is {_number(agreement)}, and {gate.agreement:g} is needed"
    if gate.worse_by is None:
        return None if gate.threshold is not None else "the gate has neither a threshold nor worse_by"
    if before is None:
        return "the alias names no version, or the registry does not know what it measured of that version"
    if before.metric.value is None:
        return "the version that the alias names has no such metric, or it was not measurable"
    if gate.rows is not None and (before.rows is None or before.rows < gate.rows):
        return f"the version that the alias names was measured on {_number(before.rows)} rows, and {gate.rows} are needed"
    if not now.protocol or now.protocol != before.protocol:
        return "it is not known that both versions were measured on the same data"
    return None


def _compared(margin: Margin) -> tuple[str, str]:
    """Return verdict and reason: the whole interval has to lie on one side of the limit."""
    low, high = margin.bounds or (margin.value, margin.value)
    if low >= 0:
        verdict = PASSED
    elif high < 0:
        verdict = FAILED
    else:
        return INCONCLUSIVE, f"the interval, from {low:+.4g} to {high:+.4g} around the limit, spans it"
    known = "no interval is known" if margin.bounds is None else f"with an interval from {low:+.4g} to {high:+.4g}"
    return verdict, f"it is {abs(margin.value):.4g} {'within' if margin.value >= 0 else 'beyond'} the limit, {known}"


def _protocol(name: str, version: ModelRegistered) -> frozenset[str]:
    if name.startswith(HARNESS):
        task = harness_task(name, version.metrics) or name
        facts: Sequence[str | None] = [result.facts.get(task) for result in version.lineage.results.values()]
    else:
        facts = [version.lineage.dataset_sha256]
    return frozenset(fact for fact in facts if fact is not None)


def _negative(metric: Metric) -> Metric:
    bounds = metric.bounds and (-metric.bounds[1], -metric.bounds[0])
    return Metric(metric.name, None if metric.value is None else -metric.value, bounds)


def _shifted(metric: Metric, by: float) -> Margin | None:
    if metric.value is None:
        return None
    bounds = metric.bounds and (_sum(metric.bounds[0], by), _sum(metric.bounds[1], by))
    return Margin(_sum(metric.value, by), bounds)


def _sum(one: float, other: float) -> float:
    """Return the sum; what is 0 but for rounding is 0, so that 0.90 is worse than 0.92 by no more than 0.02."""
    return 0.0 if math.isclose(one, -other, rel_tol=1e-9) else one + other


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:g}"
