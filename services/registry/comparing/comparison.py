"""Compares two to five versions: what was measured of each, and how they were made."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, JsonValue

from schemas.base import Frozen
from schemas.metrics import Metric, paired
from schemas.versions import LIVE
from services.registry.comparing.change import change, lower_is_better
from services.registry.views import VersionView

FEWEST, MOST = 2, 5


class MeasuredValue(Frozen):
    """A metric of one version."""

    value: float | None = Field(description="Null: it was not measurable.")
    low: float | None = Field(default=None, description="Lower bound of its 95 % confidence interval; null if it has none.")
    high: float | None = Field(default=None, description="Upper bound.")


class MetricChange(Frozen):
    """A metric of one version against that of the first."""

    difference: float
    low: float | None = Field(default=None, description="Lower bound of the difference's 95 % confidence interval.")
    high: float | None = Field(default=None, description="Upper bound.")
    verdict: str = Field(
        description="better, worse, equal, or unclear: the interval contains 0, there is none, or it is not known which "
        "direction is better."
    )


class ComparedMetric(Frozen):
    """One metric of all versions."""

    name: str
    better: str | None = Field(description="lower or higher; null if it is not known.")
    values: tuple[MeasuredValue | None, ...] = Field(description="By version; null: it has no such metric.")
    changes: tuple[MetricChange | None, ...] = Field(
        description="By version, against the first; null for the first, without a value, and for versions that were measured "
        "on other data."
    )


class ConfigurationField(Frozen):
    """One field of how versions were made."""

    field: str = Field(description="Its dotted path.")
    values: tuple[JsonValue, ...] = Field(description="By version; null: it has no such field.")
    differs: bool


class ComparedVersion(Frozen):
    """A version that is compared."""

    id: str
    aliases: tuple[str, ...]
    job_id: str
    evaluated: bool
    same_data: bool = Field(description="Whether its metrics come from the same data set as those of the first version.")


class ComparedAnswers(Frozen):
    """The answers of all versions to one held-out prompt."""

    id: str = Field(description="The row of the data set.")
    prompt: str = Field(description="The last turn before the answer.")
    reference: str
    answers: tuple[str | None, ...] = Field(
        description="By version, its most likely answer; null: it did not answer the row."
    )


class Comparison(Frozen):
    """Versions beside each other."""

    versions: tuple[ComparedVersion, ...]
    metrics: tuple[ComparedMetric, ...]
    configuration: tuple[ConfigurationField, ...]
    answers: tuple[ComparedAnswers, ...] = ()
    remarks: tuple[str, ...] = Field(default=(), description="What limits the comparison.")


def compared(views: Sequence[VersionView], *, everything: bool) -> Comparison:
    """Compare versions with the first of them; `everything`: also metrics and fields that do not differ."""
    first = views[0]
    same = [_data_of(view) == _data_of(first) for view in views]
    metrics = [{metric.name: metric for metric in paired(view.metrics)} for view in views]
    names = dict.fromkeys(name for of_version in metrics for name in of_version)
    rows = (_metric(name, [of_version.get(name) for of_version in metrics], same) for name in names)
    fields = list(_configuration(views))
    return Comparison(
        versions=tuple(_version(view, is_same) for view, is_same in zip(views, same, strict=True)),
        metrics=tuple(row for row in rows if everything or len(set(row.values)) > 1),
        configuration=tuple(field for field in fields if everything or field.differs),
        remarks=tuple(_remarks(views, same)),
    )


def _version(view: VersionView, same: bool) -> ComparedVersion:
    return ComparedVersion(
        id=view.id, aliases=view.aliases, job_id=view.lineage.job_id, evaluated=view.evaluated, same_data=same
    )


def _data_of(view: VersionView) -> str | None:
    return view.lineage.dataset_sha256


def _metric(name: str, found: Sequence[Metric | None], same: Sequence[bool]) -> ComparedMetric:
    lower = lower_is_better(name)
    changes = [
        _change(found[0], metric) if number and is_same else None
        for number, (metric, is_same) in enumerate(zip(found, same, strict=True))
    ]
    return ComparedMetric(
        name=name,
        better=None if lower is None else "lower" if lower else "higher",
        values=tuple(None if metric is None else _value(metric) for metric in found),
        changes=tuple(changes),
    )


def _value(metric: Metric) -> MeasuredValue:
    low, high = metric.bounds or (None, None)
    return MeasuredValue(value=metric.value, low=low, high=high)


def _change(before: Metric | None, after: Metric | None) -> MetricChange | None:
    made = change(before, after) if before and after else None
    if made is None:
        return None
    low, high = made.bounds or (None, None)
    return MetricChange(difference=made.difference, low=low, high=high, verdict=made.verdict)


def _configuration(views: Sequence[VersionView]) -> Iterator[ConfigurationField]:
    made = [dict(_flat("", _made_of(view))) for view in views]
    for field in dict.fromkeys(name for of_version in made for name in of_version):
        values = tuple(of_version.get(field) for of_version in made)
        differs = len({json.dumps(value, sort_keys=True) for value in values}) > 1
        yield ConfigurationField(field=field, values=values, differs=differs)


def _made_of(view: VersionView) -> Mapping[str, JsonValue]:
    lineage = view.lineage
    return {
        "base_model": lineage.base_model, "base_model_sha256": lineage.base_model_sha256, "started_from": lineage.started_from,
        "dataset_sha256": lineage.dataset_sha256, "kind": view.kind, "training": lineage.configuration,
        "artifact_bytes": view.artifact.size, "imported_from": lineage.imported.source if lineage.imported else None,
    }  # fmt: skip


def _flat(path: str, value: Any) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}" if path else name, inner)
    else:
        yield path, value


def _remarks(views: Sequence[VersionView], same: Sequence[bool]) -> Iterator[str]:
    for view, is_same in zip(views, same, strict=True):
        if view.state != LIVE:
            yield f"{view.id} is {view.state}: {view.state_reason}"
        if not view.evaluated:
            yield f"{view.id} was not evaluated before its registration"
        elif not is_same:
            yield f"{view.id} was measured on other data than {views[0].id}, so their metrics are shown and not compared"
