"""Erases rows of data sets: who erased which rows and why, what remains of a data set, and which versions learnt from them.

An erasure is a row of its own, so that the row of a data set stays small: that one has only how many erasures were told, and how many of
them are done. An erasure that is repeated is another one, whose removal finds nothing left to do.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from schemas.datasets import RowsErased, RowsRemoved
from schemas.envelope import Event
from schemas.models import ErasedRowsLearnt
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, State, opening
from services.registry.domain.datasets import DatasetState, dataset_id, dataset_ref
from services.registry.domain.state import Learnt, RegistrationState, model_ref

ERASURE = "erasure"


class ErasureState(State):
    """The rows that were erased from one data set at once; it never changes."""

    told: RowsErased | None = None
    at: datetime | None = None


class Erasures(AggregateType):
    """How erasures are stored for queries."""

    def __init__(self) -> None:
        super().__init__(ERASURE, ErasureState, {"dataset": "text", "erased_at": "timestamptz"})

    def values(self, state: ErasureState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        return {"dataset": state.told and dataset_id(state.told), "erased_at": state.at}


def erasure_ref(told: RowsErased) -> Ref:
    """Return the reference to an erasure of rows of one data set."""
    return Ref(ERASURE, f"{told.erasure}/{dataset_id(told)}")


def after_data_event(state: DatasetState | ErasureState, event: Event) -> DatasetState | ErasureState:
    """Return the row of a data set or of an erasure after rows were erased, or their bytes removed."""
    match state, event.data:
        case ErasureState(), RowsErased() as told:
            return state.model_copy(update={"told": told, "at": event.time, **opening(event)})
        case DatasetState(), RowsErased():
            return state.model_copy(update={"erasures": state.erasures + 1})
        case DatasetState(), RowsRemoved() as removed:
            return state.model_copy(update={"removed": max(state.removed, removed.erasures), "remains": removed})
    return state


def erasure(told: RowsErased) -> Decision:
    """Erase rows of a data set that has them."""
    return Decision(dataset_ref(told), dataset_id(told), told)


def removal(state: DatasetState, removed: RowsRemoved) -> Decision | None:
    """Tell that the bytes of erased rows are removed; None if that was told before."""
    if removed.erasures <= state.removed:
        return None
    return Decision(dataset_ref(removed), dataset_id(removed), removed)


def learnt_from_erased(row: RegistrationState, erased: RowsErased, rows: int, through: str | None) -> Decision | None:
    """Mark a version that learnt from erased rows of a data set, `rows` in all; None if it is marked so."""
    made, known = row.registered, row.erased.get(dataset_id(erased))
    if made is None or (known is not None and known.rows >= rows):
        return None
    told = ErasedRowsLearnt(
        model=made.model, version=made.version, job_id=made.lineage.job_id, step=made.lineage.step, erasure=erased.erasure,
        dataset=dataset_id(erased), rows=rows, through=through, by=erased.by, reason=erased.reason,
    )  # fmt: skip
    return Decision(model_ref(made.model), made.model, told)


def after_mark(state: RegistrationState, told: ErasedRowsLearnt, at: datetime) -> Mapping[str, Any]:
    """Return the fields of a version's row after it was marked."""
    learnt = Learnt(rows=told.rows, through=told.through, at=at, by=told.by, reason=told.reason)
    return {"erased": {**state.erased, told.dataset: learnt}}
