"""Recommends a version of a model for a goal, and says why, how sure that is, and what would have to be measured."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from schemas.base import Frozen
from schemas.metrics import Metric, paired
from schemas.versions import LIVE
from services.registry.comparing.change import change, lower_is_better
from services.registry.views import VersionView

Goal = Literal["quality", "latency", "size"]
_QUALITY = ("good_reply", "exact_match", "number_match", "held_out_accuracy", "valid_json", "loss")
"""Metrics of quality, in the order in which they are preferred."""
_OF_GOAL: Mapping[Goal, tuple[str, ...]] = {"latency": ("latency_ms_per_token",), "size": ("artifact_bytes",)}


class ScoredVersion(Frozen):
    """A version that was considered."""

    id: str
    score: float = Field(description="From 0 to 1: 1 is the best of those that were considered in all goals.")
    values: dict[str, float] = Field(description="What was measured of it, by metric.")


class Recommendation(Frozen):
    """A version for a goal."""

    model: str
    version: str | None = Field(description="Id of the version; null if nothing was measured that the goal needs.")
    confidence: str = Field(
        description="clear: the 95 % confidence interval of the difference to the next one excludes 0; unclear; or none."
    )
    metrics: dict[str, float] = Field(description="The metrics that counted, with their weights.")
    reasons: tuple[str, ...]
    missing: tuple[str, ...] = Field(description="What was not measured, or is deprecated or archived.")
    considered: tuple[ScoredVersion, ...] = Field(description="The best first.")


def recommended(
    model: str, views: Sequence[VersionView], weights: Mapping[Goal, float], metric: str | None = None
) -> Recommendation:
    """Recommend a live one of `views` for goals with `weights`, which are positive. `metric`: what quality means.

    Versions are compared on the data on which most of them were measured, ties in favour of the newest. Each metric is scaled to 0
    (worst) to 1 (best), and the scores are added up by weight.
    """
    live = [view for view in views if view.state == LIVE]
    measured, missing = _comparable(live)
    missing += [f"{view.id} is {view.state}: {view.state_reason}" for view in views if view.state != LIVE]
    names = _metrics(weights, measured, metric)
    found = {view.id: _values(view) for view in measured}
    able = [view for view in measured if all(_is_measured(found[view.id], name) for name in names)]
    missing += [f"{view.id} lacks {_lacking(found[view.id], names)}" for view in measured if view not in able]
    if not able or not names:
        why = "no version was evaluated" if not measured else "no version has all that the goal needs"
        return Recommendation(
            model=model,
            version=None,
            confidence="none",
            metrics=names,
            reasons=(why,),
            missing=tuple(missing),
            considered=(),
        )
    scored = _scored(able, found, names)
    best, *others = scored
    confidence, reasons = _confidence(best, others, found, names)
    return Recommendation(
        model=model, version=best.id, confidence=confidence, metrics=names, reasons=tuple(reasons), missing=tuple(missing),
        considered=tuple(scored),
    )  # fmt: skip


def _comparable(views: Sequence[VersionView]) -> tuple[list[VersionView], list[str]]:
    """Return the versions that were measured on one data set, and why the others do not count."""
    evaluated = [view for view in views if view.evaluated]
    missing = [f"{view.id} was not evaluated" for view in views if not view.evaluated]
    data = [view.lineage.dataset_sha256 for view in evaluated]
    chosen = max(data, key=data.count, default=None)
    missing += [f"{view.id} was measured on other data" for view in evaluated if view.lineage.dataset_sha256 != chosen]
    return [view for view in evaluated if view.lineage.dataset_sha256 == chosen], missing


def _metrics(weights: Mapping[Goal, float], views: Sequence[VersionView], metric: str | None) -> dict[str, float]:
    names = dict[str, float]()
    for goal, weight in weights.items():
        choices = _OF_GOAL.get(goal) or ((metric,) if metric else _QUALITY)
        known = [name for name in choices if any(_is_measured(_values(view), name) for view in views)]
        if found := (known or list(choices))[:1]:
            names[found[0]] = weight
    return names


def _values(view: VersionView) -> dict[str, Metric]:
    metrics = {**view.metrics, "artifact_bytes": float(view.artifact.size)}
    return {one.name: one for one in paired(metrics)}


def _is_measured(found: Mapping[str, Metric], name: str) -> bool:
    return name in found and found[name].value is not None


def _lacking(found: Mapping[str, Metric], names: Mapping[str, float]) -> str:
    return ", ".join(name for name in names if not _is_measured(found, name))


def _value(found: Mapping[str, Metric], name: str) -> float:
    value = found[name].value
    assert value is not None
    return value


def _scored(
    able: Sequence[VersionView], found: Mapping[str, Mapping[str, Metric]], names: Mapping[str, float]
) -> list[ScoredVersion]:
    ranges = {name: [_value(found[view.id], name) for view in able] for name in names}
    total = sum(names.values())
    scored = [
        ScoredVersion(
            id=view.id,
            score=sum(weight * _scaled(name, _value(found[view.id], name), ranges[name]) for name, weight in names.items())
            / total,
            values={name: _value(found[view.id], name) for name in names},
        )
        for view in able
    ]
    return sorted(scored, key=lambda one: -one.score)


def _scaled(name: str, value: float, values: Sequence[float]) -> float:
    low, high = min(values), max(values)
    share = 1.0 if high == low else (value - low) / (high - low)
    return 1 - share if lower_is_better(name) and high > low else share


def _confidence(
    best: ScoredVersion,
    others: Sequence[ScoredVersion],
    found: Mapping[str, Mapping[str, Metric]],
    names: Mapping[str, float],
) -> tuple[str, list[str]]:
    told = ", ".join(f"{name} {value:.4g}" for name, value in best.values.items())
    if not others:
        return "unclear", [f"{best.id} is the only one that was measured: {told}"]
    next_one = others[0]
    reasons = [f"{best.id} has {told}"]
    verdicts = list[str]()
    for name in names:
        made = change(found[next_one.id][name], found[best.id][name])
        assert made is not None
        bounds = "without an interval" if made.bounds is None else "{:.4g} to {:.4g}".format(*made.bounds)
        reasons.append(f"{name} differs from {next_one.id} by {made.difference:.4g} ({bounds})")
        verdicts.append(made.verdict)
    return ("clear" if "better" in verdicts and set(verdicts) <= {"better", "equal"} else "unclear"), reasons
