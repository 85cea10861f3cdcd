"""Registers data sets: what a step of kind prepare stored, once under each name and digest.

A row is one version of a data set. Its `snapshot` comes from facts of the trainer, of which the earliest counts, and `registered` from
the registry's own event (rule 2). So the decision needs this row alone, and follows from it after a restore, too (rule 5).
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from schemas.artifacts import SHA256_PATTERN
from schemas.base import Frozen
from schemas.datasets import DatasetRegistered, RowsErased, RowsRemoved
from schemas.envelope import Event
from schemas.jobs import StepCompleted
from schemas.lines import SPLITS
from schemas.recipes.dataset import DATASET_NAME_PATTERN
from schemas.results import (
    DATASET,
    DATASET_LAYOUT,
    DATASET_LICENCE,
    DATASET_NAME,
    DATASET_NOTES,
    DATASET_REFERENCE,
    DATASET_SHA256,
    DATASET_SOURCE,
    PREFERENCES,
    REQUESTER,
    ROW_INDEX,
    SNAPSHOT_SHA256,
)
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, State, opening

DATA_SET = "dataset"
_ROWS = "rows_"


class Snapshot(Frozen):
    """The first StepCompleted that stored the rows."""

    at: datetime
    event_id: str
    told: DatasetRegistered


class DatasetState(State):
    """One version of a data set."""

    snapshot: Snapshot | None = None
    registered: DatasetRegistered | None = None
    registered_at: datetime | None = None
    erasures: int = 0
    """How often rows of it were erased."""
    removed: int = 0
    """How many of these erasures are done: the bytes are removed."""
    remains: RowsRemoved | None = None
    """What remains of it after the last of these."""


class Datasets(AggregateType):
    """How data sets are stored for lists."""

    def __init__(self) -> None:
        columns = {
            "name": "text", "sha256": "text", "dataset_sha256": "text", "licence": "text", "job_id": "text",
            "registered_by": "text", "registered_at": "timestamptz", "erasing": "boolean",
        }  # fmt: skip
        super().__init__(DATA_SET, DatasetState, columns)

    def values(self, state: DatasetState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        made = state.registered
        return {
            "name": made and made.dataset,
            "sha256": made and made.sha256,
            "dataset_sha256": made and made.dataset_sha256,
            "licence": made and made.licence,
            "job_id": made and made.job_id,
            "registered_by": made and made.registered_by,
            "registered_at": state.registered_at,
            "erasing": state.erasures > state.removed,
        }


_About = DatasetRegistered | RowsErased | RowsRemoved


def dataset_id(made: _About) -> str:
    """Return `name@digest`."""
    return f"{made.dataset}@{made.sha256}"


def dataset_ref(made: _About) -> Ref:
    """Return the reference to one version of a data set."""
    return Ref(DATA_SET, dataset_id(made))


def stored_by(completed: StepCompleted) -> DatasetRegistered | None:
    """Return the data set that a step stored; None for a step that stored none, or an earlier release that does not name it."""
    if completed.kind != "prepare":
        return None
    result, facts = completed.result, completed.result.facts
    name, digest, rows = facts.get(DATASET_NAME, ""), facts.get(SNAPSHOT_SHA256, ""), facts.get(DATASET_SHA256, "")
    artifact = result.outputs.get(DATASET)
    if artifact is None or not (_is_name(name) and _is_digest(digest) and _is_digest(rows)):
        return None
    return DatasetRegistered(
        dataset=name,
        sha256=digest,
        dataset_sha256=rows,
        artifact=artifact,
        preferences=result.outputs.get(PREFERENCES),
        row_index=result.outputs.get(ROW_INDEX),
        rows={split: int(number) for split in SPLITS if (number := result.metrics.get(f"{_ROWS}{split}"))},
        metrics=result.metrics,
        reference=facts.get(DATASET_REFERENCE, name),
        source=facts.get(DATASET_SOURCE),
        licence=facts.get(DATASET_LICENCE),
        layout=facts.get(DATASET_LAYOUT),
        notes=facts.get(DATASET_NOTES),
        registered_by=facts.get(REQUESTER, "unknown"),
        job_id=completed.job_id,
        step=completed.step,
        attempt=completed.attempt,
    )


def after_snapshot(state: DatasetState, event: Event, told: DatasetRegistered) -> DatasetState:
    """Return the row after a step stored the rows: the earliest counts, in whatever order they are read."""
    found = Snapshot(at=event.time, event_id=event.id, told=told)
    known = state.snapshot
    if known and (known.at, known.event_id) <= (found.at, found.event_id):
        return state
    return state.model_copy(update={"snapshot": found, **opening(event)})


def after_registration(state: DatasetState, event: Event, made: DatasetRegistered) -> DatasetState:
    """Return the row after the data set was registered."""
    return state.model_copy(update={"registered": made, "registered_at": event.time})


def registration(state: DatasetState) -> Decision | None:
    """Register what was stored, unless it is registered."""
    if state.snapshot is None or state.registered is not None:
        return None
    told = state.snapshot.told
    return Decision(dataset_ref(told), dataset_id(told), told)


def _is_name(text: str) -> bool:
    return re.fullmatch(DATASET_NAME_PATTERN, text) is not None


def _is_digest(text: str) -> bool:
    return re.fullmatch(SHA256_PATTERN, text) is not None
