"""Finds the records that say how one version came about, and reads their values with the place that each comes from. Pure.

Values are read from the JSON of a record as it is on the log, not through the types of this release, so that what follows from a record
does not change when a type gains a field.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from schemas.json_text import NoJson, parse, storable
from schemas.reasons import Reason
from schemas.requests import NO_DATASET
from services.audit.bundle.cited import NOT_RECORDED, NULL, Cited, escaped
from services.audit.bundle.faults import BundleRefused
from services.audit.bundle.record_lines import ProvenRecord
from services.audit.raw_envelope import RawEnvelope, read_envelope

_PARTS = 50_000
"""The most objects and lists of a record whose values are read: each takes fifty times as many bytes in memory as in text."""
_PREFIX = "neuroweaver."
_VERSION = re.compile(r"\.v\d+$")
REGISTRY, ORCHESTRATOR = "neuroweaver/registry", "neuroweaver/orchestrator"
"""Who writes what is cited about versions, and about jobs."""
_ANSWERS = ("JobControlled", "JobControlRefused")
_MOVES = ("ModelPromoted", "ModelRolledBack", "AliasRefused")
EXECUTORS = ("neuroweaver/trainer", "neuroweaver/feedback", REGISTRY)
"""Who writes what is cited about steps."""


class Source:
    """One record, whose values are cited."""

    def __init__(self, proven: ProvenRecord) -> None:
        self.place = proven.place
        self._record = proven.record
        self.envelope: RawEnvelope = read_envelope(proven.record.value, proven.record.headers)

    @property
    def type(self) -> str:
        """The event's type without prefix and version."""
        return _VERSION.sub("", (self.envelope.type or "").removeprefix(_PREFIX))

    @cached_property
    def value(self) -> Any:
        """The JSON of the record; None if it is none, names something twice, or has what no database can store."""
        raw, faults = self._record.value or b"null", list[Reason]()
        if raw.count(b"{") + raw.count(b"[") > _PARTS:
            return None
        try:
            found = parse(raw, doubled=True)
        except NoJson:
            return None
        if not found.plain:
            storable(found.value, "", faults)
        return None if faults or found.doubled or found.deep else found.value

    def at(self, *path: str) -> Cited:
        """Return the value at a path into the JSON of the record."""
        found: Any = self.value
        there = True
        for name in path:
            if isinstance(found, Mapping):
                there, found = name in found, found.get(name)
            elif isinstance(found, list):
                there = name.isdecimal() and int(name) < len(found)
                found = found[int(name)] if there else None
            else:
                there, found = False, None
        origin = f"{self.place}#{''.join(f'/{escaped(name)}' for name in path)}"
        return Cited(found, (origin,), NULL if there and found is None else None)

    def under(self, *path: str) -> Sequence[str]:
        """Return the names at a path, sorted, or the numbers of a list; nothing if there is neither."""
        found = self.at(*path).value
        if isinstance(found, Mapping):
            return sorted(found)
        return [str(number) for number in range(len(found))] if isinstance(found, list) else []

    def header(self, name: str) -> Cited:
        """Return an attribute of the envelope, such as `ce_time`, as text."""
        raw = next((raw for known, raw in self._record.headers if known.lower() == name), None)
        return Cited(raw.decode(errors="backslashreplace") if raw else None, (f"{self.place}!{name}",))


class PlanStep(NamedTuple):
    """A step of a job's plan."""

    number: str
    """Its place in the plan."""
    name: str
    kind: str


@dataclass(frozen=True)
class VersionSources:
    """The records from which the documents about a version follow."""

    registered: Source
    accepted: Source | None
    completed: Mapping[str, Source]
    """The completion of each step, of its last attempt."""
    moved: Sequence[Source]
    """The alias moves to the version, and those that were refused."""
    feedback: Sequence[Source]
    interventions: Sequence[Source]
    """What people asked of the job after they had requested it, as the orchestrator answered."""
    erased: Sequence[Source] = ()
    """What the registry found of erased rows that the version learnt from."""

    def of_request(self, *path: str) -> Cited:
        """Return a value of the request with its defaults, as the orchestrator accepted it."""
        return self.accepted.at("request", *path) if self.accepted else NOT_RECORDED

    @property
    def data(self) -> Cited:
        """Return the reference of the data set; an import may read none."""
        found = self.of_request("dataset", "reference")
        return NOT_RECORDED if found.value == NO_DATASET else found

    @property
    def imported(self) -> bool:
        """Whether its files were made elsewhere, so that its job only read them."""
        return self.registered.at("lineage", "imported").value is not None

    @property
    def steps(self) -> Sequence[str]:
        """The steps before the registration, in the order of the plan."""
        known = self.registered.under("lineage", "results")
        planned = [step.name for step in self.plan]
        return [*(name for name in planned if name in known), *(name for name in known if name not in planned)]

    @cached_property
    def plan(self) -> Sequence["PlanStep"]:
        """The steps of the plan."""
        if self.accepted is None:
            return []
        return [
            PlanStep(number, name, kind)
            for number in self.accepted.under("plan")
            for name, kind in [[self.accepted.at("plan", number, part).value for part in ("name", "kind")]]
            if isinstance(name, str) and isinstance(kind, str)
        ]

    def settings(self, step: str, section: str) -> Sequence[Cited]:
        """Return a section of the settings of a step, where the plan has it."""
        if self.accepted is None:
            return []
        found = [self.accepted.at("plan", one.number, "settings", section) for one in self.plan if one.name == step]
        return [section for section in found if section.value is not None]

    def result(self, step: str, *path: str) -> Cited:
        """Return a value of the result of a step before the registration."""
        return self.registered.at("lineage", "results", step, *path)

    def fact(self, name: str) -> Cited:
        """Return a fact of the first step that told it."""
        found = (self.result(step, "facts", name) for step in self.steps)
        return next((fact for fact in found if fact.value is not None), NOT_RECORDED)

    def of_kind(self, kind: str) -> Iterator[str]:
        """Yield the steps of a kind before the registration."""
        named = {one.name for one in self.plan if one.kind == kind}
        return (step for step in self.steps if step in named)


def sources_of(records: Sequence[ProvenRecord], model: str, version: str) -> VersionSources:
    """Sort the records of a job. Raises BundleRefused if the registration of `model@version` is not among them.

    Only what a service says of its own aggregates counts.
    """
    found = [Source(record) for record in records]
    about = [one for one in found if one.envelope.source == REGISTRY and _named(one) == (model, version)]
    registered = next((one for one in about if one.type == "ModelRegistered"), None)
    if registered is None:
        raise BundleRefused(f"no record registers {model}@{version}")
    job = registered.at("lineage", "job_id").value
    of_job = [one for one in found if isinstance(job, str) and one.at("job_id").value == job]
    decided = [one for one in of_job if one.envelope.source == ORCHESTRATOR]
    done = [one for one in of_job if one.envelope.source in EXECUTORS]
    return VersionSources(
        registered,
        next((one for one in reversed(decided) if one.type == "JobAccepted"), None),
        {str(one.at("step").value): one for one in done if one.type == "StepCompleted"},
        [one for one in about if one.type in _MOVES],
        [one for one in done if one.type == "FeedbackRecorded"],
        [one for one in decided if one.type in _ANSWERS],
        [one for one in about if one.type == "ErasedRowsLearnt"],
    )


def _named(source: Source) -> tuple[Any, Any]:
    return source.at("model").value, source.at("version").value
