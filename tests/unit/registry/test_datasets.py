"""Registers what steps of kind prepare stored: once under each name and digest, whatever is told twice, late or wrongly."""

from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.datasets import DatasetRegistered
from schemas.envelope import Event
from schemas.jobs import StepCompleted, StepResult
from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.registry.domain.datasets import DATA_SET, DatasetState, stored_by
from services.registry.domain.models import RegistryDomain
from tests.steps import START, an_event

ROWS = "a" * 64
TRAINER = "neuroweaver/trainer"


def completed(job: str = "job-1", kind: str = "prepare", attempt: int = 1, **facts: Any) -> StepCompleted:
    """What a trainer says when it stored rows."""
    told = {"dataset_name": "support", "snapshot_sha256": "1" * 64, "dataset_sha256": ROWS, "requester": "ana", **facts}
    artifact = ArtifactRef(uri="/a", sha256="c" * 64, size=9)
    result = StepResult(
        outputs={"dataset": artifact}, facts=told, metrics={"rows_train": 9.0, "rows_test": 0.0, "tokens_median_row": 4.5}
    )
    return StepCompleted(job_id=job, step="prepare", attempt=attempt, kind=kind, result=result)


class World:
    """A registry's rows, without a log."""

    def __init__(self) -> None:
        self.domain, self.rows, self.made = RegistryDomain(), dict[Ref, AggregateRow](), list[Event]()

    def told(self, data: StepCompleted, seconds: float = 0) -> Event:
        """Apply a record and return it."""
        event = an_event(data, TRAINER, seconds=seconds, subject=data.job_id)
        return self.applied(event)

    def applied(self, event: Event) -> Event:
        for ref in self.domain.touches(event):
            self.rows.setdefault(ref, AggregateRow.absent(self.domain, ref))
        unit = UnitOfWork(self.domain, self.rows, START, lambda: f"own-{len(self.made)}")
        unit.fold(Incoming(event, Logged(event.time, "neuroweaver.jobs", 0, len(self.made))))
        self.made += unit.emitted
        return event

    @property
    def registered(self) -> list[DatasetRegistered]:
        return [event.data for event in self.made if isinstance(event.data, DatasetRegistered)]


def test_what_a_step_stored_is_registered_with_rows_statistics_and_who_did_it() -> None:
    world = World()
    cause = world.told(completed(dataset_source="tickets", dataset_licence="CC0", dataset_reference="./rows.jsonl"))
    (event,), (made,) = world.made, world.registered
    assert (made.dataset, made.sha256, made.rows, made.registered_by) == ("support", "1" * 64, {"train": 9}, "ana")
    assert (made.source, made.licence, made.reference, made.job_id) == ("tickets", "CC0", "./rows.jsonl", "job-1")
    assert (event.subject, event.sequence, event.causation_id) == (f"support@{'1' * 64}", 1, cause.id)


def test_the_same_rows_under_the_same_name_are_registered_once() -> None:
    world = World()
    for attempt, job in enumerate(("job-1", "job-1", "job-2"), 1):
        world.told(completed(job, attempt=attempt), seconds=attempt)
    assert [made.job_id for made in world.registered] == ["job-1"]
    assert sum(ref.aggregate == "data_use" for ref in world.rows) == 3, "each attempt stored them"


def test_other_rows_under_the_name_and_the_rows_under_another_name_are_registered_beside_it() -> None:
    world = World()
    world.told(completed())
    world.told(completed("job-2", snapshot_sha256="2" * 64))
    world.told(completed("job-3", dataset_name="other"))
    assert [(made.dataset, made.sha256[0]) for made in world.registered] == [
        ("support", "1"),
        ("support", "2"),
        ("other", "1"),
    ]
    assert [event.sequence for event in world.made] == [1, 1, 1]


def test_an_earlier_fact_that_is_read_late_changes_no_decision() -> None:
    world = World()
    world.told(completed("job-2"), seconds=5)
    world.told(completed("job-1"), seconds=1)
    (state,) = (row.state for row in world.rows.values() if isinstance(row.state, DatasetState))
    assert state.registered is not None
    assert state.snapshot is not None
    assert (state.registered.job_id, state.snapshot.told.job_id) == ("job-2", "job-1")
    assert len(world.made) == 1


def test_a_decision_that_was_lost_with_the_database_is_taken_from_the_row_alone() -> None:
    told = an_event(completed(), TRAINER)
    domain = RegistryDomain()
    ref = next(ref for ref in domain.touches(told) if ref.aggregate == DATA_SET)
    restored = domain.evolve(ref, DatasetState(), told, None)  # a restore folds and does not decide
    decision = domain.decide(ref, {ref: restored}, START)
    assert decision is not None
    assert isinstance(decision.data, DatasetRegistered)


@pytest.mark.parametrize(
    "facts",
    [
        {"dataset_name": ".."}, {"dataset_name": ".a"}, {"dataset_name": "a/b"}, {"dataset_name": ""}, {"dataset_name": "n" * 129},
        {"dataset_name": "a\nb"}, {"dataset_name": "support\n"}, {"snapshot_sha256": "1" * 63}, {"snapshot_sha256": "G" * 64},
        {"snapshot_sha256": f"{'1' * 64}\n"}, {"dataset_sha256": ""},
    ],
)  # fmt: skip
def test_a_name_or_digest_that_is_none_registers_nothing(facts: dict[str, Any]) -> None:
    world = World()
    world.told(completed(**facts))
    assert world.made == []
    assert world.rows == {}


def test_steps_of_earlier_releases_and_of_other_kinds_register_nothing() -> None:
    old = completed()
    facts = {name: value for name, value in old.result.facts.items() if name == "dataset_sha256"}
    assert stored_by(old.model_copy(update={"result": old.result.model_copy(update={"facts": facts})})) is None
    assert stored_by(completed(kind="evaluate")) is None
    nothing: dict[str, Any] = {"outputs": {}}
    assert stored_by(old.model_copy(update={"result": old.result.model_copy(update=nothing)})) is None
