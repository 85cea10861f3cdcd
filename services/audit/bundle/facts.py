"""What is known about a version, in sections of named values, each with the records that say it. Pure.

Nothing is typed by hand: what no record has is "not recorded".
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from schemas.metrics import paired
from services.audit.bundle.cited import NOT_RECORDED, NULL, Cited
from services.audit.bundle.compute import compute_of
from services.audit.bundle.sources import Source, VersionSources

_DATA_METRICS = ("rows_", "tokens_")
LIMITS = ("dataset_notes", "rows_left_out", "rewards_missing", "versions_changed", "version_deprecated", "erased_inputs")
"""Facts in which steps tell what a reader should know."""
_FEEDBACK = (
    "judge", "candidates", "comparisons", "pairs", "ties", "invalid", "agreement", "position_consistency", "longer_preferred"
)  # fmt: skip
_USED = ("seconds", "cores", "devices", "processor_joules", "device_joules", "cost", "currency")
_SETTINGS = ("training", "preference", "kto", "reward", "grpo", "rloo", "distill", "compression")


class Fact(NamedTuple):
    """One named value."""

    name: str
    value: Cited


class Section(NamedTuple):
    """Values about one subject."""

    title: str
    facts: Sequence[Fact]


def sections_of(known: VersionSources) -> list[Section]:
    """Return all sections, in their order."""
    return [
        Section("The version", list(_version(known))),
        Section("Purpose", list(_purpose(known))),
        Section("Base model", list(_base(known))),
        Section("Data", list(_data(known))),
        Section("Training", list(_training(known))),
        Section("Compute of this modification", list(_compute(known))),
        Section("Evaluation", list(_evaluation(known))),
        Section("Feedback of judges", list(_feedback(known))),
        Section("Oversight by people", list(_oversight(known))),
        Section("Known limits", list(_limits(known))),
    ]


def _version(known: VersionSources) -> Iterator[Fact]:
    made = known.registered
    yield Fact("model", made.at("model"))
    yield Fact("version", made.at("version"))
    yield Fact("kind of artifact", made.at("kind"))
    yield Fact("artifact, SHA-256 of its manifest", made.at("artifact", "sha256"))
    yield Fact("artifact, bytes", made.at("artifact", "size"))
    yield Fact("registered at", made.header("ce_time"))
    yield Fact("registered by", made.header("ce_source"))
    yield Fact("job", made.at("lineage", "job_id"))
    if known.imported:
        yield Fact("origin", made.at("lineage", "imported").by("made elsewhere", "imported: its files were made elsewhere"))
        yield Fact("imported by", made.at("lineage", "requester"))
        yield Fact("imported from", made.at("lineage", "imported", "source"))
        yield Fact("revision of the source", made.at("lineage", "imported", "revision"))
        yield Fact("imported at", made.at("lineage", "imported", "at"))
        yield Fact("licence, as its model card says", made.at("lineage", "imported", "licence"))
    yield Fact("compressed from", made.at("parent", "sha256"))
    yield from (Fact(f"alias: {moved.type}", moved.at("alias")) for moved in known.moved)


def _purpose(known: VersionSources) -> Iterator[Fact]:
    yield Fact("what it is for", known.registered.at("purpose"))
    yield Fact("requested by", known.registered.at("lineage", "requester"))
    yield Fact("system prompt of all rows", known.of_request("dataset", "system_prompt"))
    yield Fact("intended use", NOT_RECORDED)


def _base(known: VersionSources) -> Iterator[Fact]:
    lineage = known.registered
    yield Fact("reference", lineage.at("lineage", "base_model"))
    yield Fact("SHA-256 of its files' manifest", lineage.at("lineage", "base_model_sha256"))
    yield Fact("started from version", lineage.at("lineage", "started_from"))
    yield Fact("SHA-256 of the chat template", known.fact("chat_template_sha256"))
    yield Fact("licence", NOT_RECORDED)


def _data(known: VersionSources) -> Iterator[Fact]:
    yield Fact("reference", known.data)
    yield Fact("SHA-256", known.registered.at("lineage", "dataset_sha256"))
    yield Fact("layout", known.fact("dataset_layout"))
    for step in known.of_kind("prepare"):
        for name in known.registered.under("lineage", "results", step, "metrics"):
            if name.startswith(_DATA_METRICS):
                yield Fact(_words(name), known.result(step, "metrics", name))
    yield Fact("licence", NOT_RECORDED)
    yield Fact("personal data", NOT_RECORDED)


def _training(known: VersionSources) -> Iterator[Fact]:
    if known.imported:
        told = known.registered.at("lineage", "configuration")
        yield Fact(
            "source of the recipe", told.by("files of an import", "a file that was imported; no record here proves it")
        )
    for name in known.registered.under("lineage", "configuration", "libraries"):
        yield Fact(f"library {name}", known.registered.at("lineage", "configuration", "libraries", name))
    for step in (*known.of_kind("train"), *known.of_kind("compress")):
        yield from (Fact(f"{step}: settings", found) for section in _SETTINGS for found in known.settings(step, section))
        yield from _results(known, step, "facts", "metrics")
        yield from _usage(known, step)


def _results(known: VersionSources, step: str, *kinds: str) -> Iterator[Fact]:
    """Yield facts and metrics of a step's result, without those that tell limits."""
    for kind in kinds:
        for name in known.registered.under("lineage", "results", step, kind):
            if name not in LIMITS:
                value = known.result(step, kind, name)
                yield Fact(f"{step}: {_words(name)}", _measurable(value) if kind == "metrics" else value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _usage(known: VersionSources, step: str) -> Iterator[Fact]:
    done = known.completed.get(step)
    if done is None or done.at("usage").value is None:
        yield Fact(f"{step}: used", done.at("usage") if done else NOT_RECORDED)
    else:
        yield from (Fact(f"{step}: used {_words(part)}", done.at("usage", part)) for part in _USED)


def _compute(known: VersionSources) -> Iterator[Fact]:
    for name, value in compute_of(known):
        yield Fact(name, value)


def _evaluation(known: VersionSources) -> Iterator[Fact]:
    yield Fact("measured by a step before its registration", known.registered.at("evaluated"))
    yield from _metrics(known.registered)
    for step in known.of_kind("evaluate"):
        yield from _results(known, step, "facts", "metrics")
    for step in known.of_kind("score"):
        yield from _results(known, step, "metrics")


def _metrics(made: Source) -> Iterator[Fact]:
    if not made.under("metrics"):
        yield Fact("metrics of this version", NOT_RECORDED)
    yield from (Fact(_words(name), _measurable(made.at("metrics", name))) for name in made.under("metrics"))


def _measurable(metric: Cited) -> Cited:
    """Return a metric that is recorded; null is one that could not be measured."""
    return Cited("not measurable", metric.origins, NULL) if metric.value is None else metric


class Measured(NamedTuple):
    """A metric of the version with the bounds of its interval."""

    name: str
    value: Cited
    low: Cited
    high: Cited


def measured(known: VersionSources) -> list[Measured]:
    """Return the metrics of the version that are numbers, by name."""
    made = known.registered
    numbers: dict[str, Any] = {
        name: value for name in made.under("metrics") if _is_number(value := made.at("metrics", name).value)
    }
    return [
        Measured(
            one.name,
            made.at("metrics", one.name),
            *((made.at("metrics", f"{one.name}{side}") if one.bounds else NOT_RECORDED) for side in ("_low", "_high")),
        )
        for one in paired(numbers)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _feedback(known: VersionSources) -> Iterator[Fact]:
    if not known.feedback:
        yield Fact("feedback", NOT_RECORDED)
    for batch in known.feedback:
        step = batch.at("step").value
        yield from (Fact(f"{step}: {_words(name)}", batch.at(name)) for name in _FEEDBACK)


def _oversight(known: VersionSources) -> Iterator[Fact]:
    yield Fact("requested by", known.registered.at("lineage", "requester"))
    for asked in known.interventions:
        for name in ("control", "requester", "reason"):
            yield Fact(f"{asked.type}: {name}", asked.at(name))
    for moved in known.moved:
        for name in ("alias", "previous", "by", "reason"):
            yield Fact(f"{moved.type}: {name}", moved.at(name))
    yield Fact("review of the version by a person", NOT_RECORDED)


def _limits(known: VersionSources) -> Iterator[Fact]:
    for step in known.steps:
        for name in LIMITS:
            told = known.result(step, "facts", name)
            if told.value is not None:
                yield Fact(f"{step}: {_words(name)}", told)
    for step in known.of_kind("prepare"):
        yield Fact("held-out rows whose prompt is learnt", known.result(step, "metrics", "rows_test_seen_in_train"))
    for marked in known.erased:
        for name in ("dataset", "rows", "through", "by", "reason"):
            yield Fact(f"learnt from rows that are erased since: {name}", marked.at(name))
    metrics = known.registered.at("metrics")
    yield Fact("metrics of this version", metrics.by("their number", len(known.registered.under("metrics"))))
    yield Fact("tests for bias or safety", NOT_RECORDED)
