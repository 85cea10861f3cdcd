"""The transaction of a batch, dead letters and leases, on real PostgreSQL, under any order of what may happen to them."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text

from schemas.envelope import Event, decode, encode
from schemas.jobs import StepCompleted, StepResult
from schemas.topics import EVENT_TYPES, JOBS, REQUESTS
from services.chassis.executor.attempts import AttemptState, decision
from services.chassis.executor.work import Lease, WorkEffects, claim, release, renew, used_seconds
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.consuming import isolation
from services.chassis.kernel.consuming.isolation import Isolation
from services.chassis.kernel.deadletters.limit import DeadLetterLimit
from services.chassis.kernel.operations.handling import DeadLetterContext, discard, drain_free, retry
from services.chassis.kernel.records import Partition, RecordId, appended_at
from services.chassis.kernel.statements import INSERT_POSITION
from services.chassis.kernel.transaction.batch import Decider, Poll, apply_batch
from services.chassis.kernel.transaction.commands import transact
from tests.executor import Executor
from tests.explored import examples
from tests.log import HeldRecord
from tests.steps import request
from tests.toy import Toy

_JOBS_OF = {(REQUESTS.name, 0): ("a", "b"), (REQUESTS.name, 1): ("c", "d")}
"""Which jobs have their key in which partition."""
_ECHOES: Partition = (JOBS.name, 0)
_FACTS = st.tuples(st.integers(0, 1), st.booleans(), st.sampled_from((False, False, False, True)))
"""Which of a partition's jobs, whether it is cancelled or asked for, and whether handling the record fails."""
_UNLIMITED = DeadLetterLimit(run=10**6, share=10.0)


@dataclass
class Environment:
    """What the examples of one test share: a database, and a loop to ask it."""

    toy: Toy
    runner: asyncio.Runner


@pytest.fixture
def environment(kafka: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    monkeypatch.setattr(isolation, "_PAUSE_SECONDS", 0.0)
    toy = Toy(kafka, database_url, tmp_path)
    with asyncio.Runner() as runner:
        runner.run(toy.create())
        yield Environment(toy, runner)
        runner.run(toy.engine.dispose())


class Batches(RuleBasedStateMachine):
    """Two consumers of a service read overlapping spans of a log, again and again, while records fail and are mended."""

    environment: Environment

    def __init__(self) -> None:
        super().__init__()
        self.toy, self.run = self.environment.toy, self.environment.runner.run
        self.run(self._empty())
        self.log: dict[Partition, list[tuple[HeldRecord, Event]]] = {partition: [] for partition in (*_JOBS_OF, _ECHOES)}
        self.poison: set[str] = set()
        self.toy.domain.poison = lambda event: event.id in self.poison
        self.discarded: set[RecordId] = set()
        self.handling = DeadLetterContext(self.toy.name, self.toy.domain, self.toy.ledger, "")

    async def _empty(self) -> None:
        async with self.toy.engine.begin() as connection:
            await connection.execute(text("TRUNCATE tally, ledger, inbox, outbox, dead_letter, position"))
            for topic, number in (*_JOBS_OF, _ECHOES):
                await connection.execute(INSERT_POSITION, {"topic": topic, "partition": number})

    def _append(self, partition: Partition, event: Event) -> None:
        value, headers = encode(event)
        record = HeldRecord(*partition, len(self.log[partition]), 1_900_000_000_000, _key(event), value, list(headers))
        self.log[partition].append((record, event))

    # -- what happens -----------------------------------------------------------------------------------------------------
    @rule(partition=st.sampled_from(sorted(_JOBS_OF)), facts=st.lists(_FACTS, min_size=1, max_size=6))
    def facts_are_published(self, partition: Partition, facts: list[tuple[int, bool, bool]]) -> None:
        for job, cancels, poisonous in facts:
            name = _JOBS_OF[partition][job]
            event = self.toy.cancelled(name) if cancels else self.toy.requested(name)
            if poisonous:
                self.poison.add(event.id)
            self._append(partition, event)

    @precondition(lambda self: any(self.log[partition] for partition in _JOBS_OF))
    @rule(data=st.data())
    def a_producer_sends_again(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from([partition for partition in sorted(_JOBS_OF) if self.log[partition]]))
        self._append(partition, data.draw(st.sampled_from([event for _, event in self.log[partition]])))

    @rule(removed=st.booleans())
    def the_relay_sends(self, removed: bool) -> None:
        async def send() -> list[Any]:
            async with self.toy.engine.begin() as connection:
                waiting = await store.read_outbox(connection)
                if removed:
                    await connection.execute(text("DELETE FROM outbox"))
                return waiting

        for value, headers in self.run(send()):
            record = HeldRecord(*_ECHOES, len(self.log[_ECHOES]), 1_900_000_000_000, None, value, headers)
            event = decode(value, headers, EVENT_TYPES.keys(), appended_at(record))
            assert isinstance(event, Event)
            if event.type in self.toy.domain.handles:
                record.key = _key(event)
                self.log[_ECHOES].append((record, event))

    @rule(data=st.data())
    def a_consumer_applies_what_it_read(self, data: st.DataObject) -> None:
        self.run(self._consume(self._spans(data)))

    @rule(data=st.data())
    def two_consumers_apply_what_they_read_at_once(self, data: st.DataObject) -> None:
        async def both(one: Mapping[Partition, tuple[int, int]], other: Mapping[Partition, tuple[int, int]]) -> None:
            await asyncio.gather(self._consume(one), self._consume(other))

        self.run(both(self._spans(data), self._spans(data)))

    @precondition(lambda self: self.poison)
    @rule(data=st.data())
    def a_fault_is_mended_and_the_record_tried_again(self, data: st.DataObject) -> None:
        self.poison.discard(data.draw(st.sampled_from(sorted(self.poison))))
        self.run(self._retry_all())

    @rule()
    def records_that_fail_are_tried_again(self) -> None:
        self.run(self._retry_all())

    @rule(data=st.data())
    def a_record_is_given_up(self, data: st.DataObject) -> None:
        if failed := self.run(self._places("failed")):
            place = data.draw(st.sampled_from(failed))
            self.discarded.add(place)
            self.run(discard(self.toy.engine, self.handling, place, "it is hopeless", "a person"))

    def _spans(self, data: st.DataObject) -> dict[Partition, tuple[int, int]]:
        spans = {}
        for partition, records in sorted(self.log.items()):
            first = data.draw(st.just(0) | st.integers(0, len(records)))
            spans[partition] = (first, data.draw(st.just(len(records)) | st.integers(first, len(records))))
        return spans

    async def _consume(self, spans: Mapping[Partition, tuple[int, int]]) -> None:
        """As a consumer does: what starts above its position is left alone, what fails is set aside."""
        groups = {p: [record for record, _ in self.log[p][first:end]] for p, (first, end) in spans.items() if first < end}
        starts = {partition: spans[partition][0] for partition in groups}

        decider = Decider(self.toy.transactions, self.toy.domain, self.toy.ledger, _UNLIMITED)
        isolation = Isolation(self.toy.domain, groups)
        while attempt := isolation.next():
            here = {partition: starts[partition] for partition in attempt.records}
            try:
                done = await apply_batch(decider, Poll(attempt.records, here, attempt.failed))
            except Exception as error:
                if stopped := isolation.failed(attempt, error):
                    raise AssertionError(f"{stopped.partition} stopped: {error}") from error
                continue
            for partition in attempt.records.keys() - done.behind.keys():
                starts[partition] = attempt.records[partition][-1].offset + 1
            isolation.applied(set(done.behind))

    async def _retry_all(self) -> None:
        for place in await self._places("failed"):
            await retry(self.toy.engine, self.handling, place)
        await drain_free(self.toy.engine, self.handling)

    async def _places(self, *states: str) -> list[RecordId]:
        async with self.toy.engine.connect() as connection:
            found = await connection.execute(
                text('SELECT topic, partition, "offset" FROM dead_letter WHERE state = ANY(:states) ORDER BY 1, 2, 3'),
                {"states": list(states)},
            )
            return [tuple(row) for row in found]

    # -- what must hold ---------------------------------------------------------------------------------------------------
    @invariant()
    def facts_are_applied_once_and_in_order(self) -> None:
        tallies, positions, withheld = self.run(self._now())
        for partition, names in _JOBS_OF.items():
            applied = self.log[partition][: positions[partition]]
            for name in names:
                kept = [
                    event.id
                    for record, event in applied
                    if event.data.job_id == self.toy.prefix + name  # type: ignore[attr-defined]
                    and (*partition, record.offset) not in self.discarded | withheld
                ]
                found = list(tallies[name].order) if name in tallies else []
                assert found == list(dict.fromkeys(kept)), f"{partition} {name}"

    @invariant()
    def every_effect_happened_once_and_every_job_was_decided_once(self) -> None:
        assert self.run(self._effects()) == ([], [])

    async def _now(self) -> tuple[dict[str, Any], dict[Partition, int], set[RecordId]]:
        async with self.toy.engine.connect() as connection:
            positions = await store.positions(connection)
        return await self.toy.tallies(), positions, set(await self._places("failed", "parked"))

    async def _effects(self) -> tuple[list[str], list[str]]:
        """Events whose effect happened twice, and jobs about which more than one thing was decided."""
        async with self.toy.engine.connect() as connection:
            twice = await connection.execute(text("SELECT id FROM ledger GROUP BY id HAVING count(*) > 1"))
            again = await connection.execute(text("SELECT key FROM tally WHERE sequence > 1"))
            return [event for (event,) in twice], [key for (key,) in again]

    def teardown(self) -> None:
        """No fault any more: everything is applied, and every job that was asked for is refused once."""
        self.poison.clear()
        self.run(self._consume({partition: (0, len(records)) for partition, records in self.log.items()}))
        self.run(self._retry_all())
        self.facts_are_applied_once_and_in_order()
        tallies, positions, withheld = self.run(self._now())
        assert withheld == set()
        assert positions == {partition: len(records) for partition, records in self.log.items()}
        for tally in tallies.values():
            assert tally.refused == (1 if tally.requests else 0)


def _key(event: Event) -> bytes:
    return str(getattr(event.data, "job_id", "")).encode()


@pytest.mark.hypothesis
def test_no_order_of_deliveries_failures_and_retries_loses_or_doubles_anything(environment: Environment) -> None:
    class Here(Batches):
        pass

    Here.environment = environment
    _explore(Here)


class Leases(RuleBasedStateMachine):
    """Workers that hold, renew, lose, give back and conclude attempts; a lease of no length has ended at once."""

    executor: Executor
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.run = self.runner.run
        self.run(self.executor.empty())
        self.executor._offset = 0
        self.waiting: dict[str, tuple[int, int]] = {}
        """Open attempts by key: priority negated, order of the request."""
        self.current: dict[str, tuple[str, bool]] = {}
        """The token of each lease that was given last, and whether it lasts."""
        self.given: list[Lease] = []
        self.concluded: list[str] = []

    @rule(priority=st.integers(0, 2))
    def an_attempt_is_requested(self, priority: int) -> None:
        number = len(self.waiting) + len(self.concluded)
        asked = request(f"job-{number:02}", priority=priority)
        self.run(self.executor.deliver(asked))
        self.waiting[f"job-{number:02}/{asked.step}/1"] = (-priority, number)

    @rule(lasting=st.booleans())
    def a_worker_claims(self, lasting: bool) -> None:
        free = [key for key in self.waiting if not self.current.get(key, ("", False))[1]]
        wanted = min(free, key=lambda key: self.waiting[key], default=None)
        lease = self.run(claim(self.executor.runtime.engine, uuid4().hex, 3600 if lasting else -1))
        assert (lease and lease.key) == wanted
        if lease:
            self.current[lease.key] = (lease.token, lasting)
            self.given.append(lease)

    @precondition(lambda self: self.given)
    @rule(data=st.data(), lasting=st.booleans())
    def a_worker_renews(self, data: st.DataObject, lasting: bool) -> None:
        lease = data.draw(st.sampled_from(self.given))
        renewed = self.run(renew(self.executor.runtime.engine, lease, 3600 if lasting else -1))
        assert renewed is (False if self._holds(lease) else None)
        if self._holds(lease):
            self.current[lease.key] = (lease.token, lasting)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def a_worker_gives_back(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.given))
        self.run(release(self.executor.runtime.engine, lease))
        if self._holds(lease):
            del self.current[lease.key]

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def a_worker_concludes(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.given))
        assert self.run(self._conclude(lease)) is self._holds(lease)
        if self._holds(lease):
            del self.waiting[lease.key], self.current[lease.key]
            self.concluded.append(lease.key)

    @precondition(lambda self: len(self.given) > 1)
    @rule(data=st.data())
    def two_workers_conclude_at_once(self, data: st.DataObject) -> None:
        one, other = data.draw(st.sampled_from(self.given)), data.draw(st.sampled_from(self.given))

        async def both() -> list[bool]:
            return list(await asyncio.gather(self._conclude(one), self._conclude(other)))

        expected = {lease.key for lease in (one, other) if self._holds(lease)}
        assert sum(self.run(both())) == len(expected)
        for key in expected:
            del self.waiting[key], self.current[key]
            self.concluded.append(key)

    def _holds(self, lease: Lease) -> bool:
        return self.current.get(lease.key, ("", False))[0] == lease.token

    async def _conclude(self, lease: Lease) -> bool:
        """As `transactions.finish`."""
        ref, executor = Ref("attempt", lease.key), self.executor
        async with transact(executor.runtime.engine, executor.domain, WorkEffects(), [ref]) as command:
            state = command.unit.states[ref]
            assert isinstance(state, AttemptState)
            if await used_seconds(command.connection, lease) is None:
                return False
            assert state.requested is not None
            command.unit.apply(decision(state.requested, StepCompleted, result=StepResult()))
            return True

    @invariant()
    def every_attempt_has_at_most_one_outcome(self) -> None:
        said = self.run(self.executor.rows("SELECT ce_subject FROM outbox ORDER BY 1"))
        assert [subject for (subject,) in said] == sorted(self.concluded)

    @invariant()
    def what_is_open_and_nothing_else_lies_in_the_queue(self) -> None:
        assert [row.key for row in self.run(self.executor.work())] == sorted(self.waiting)


@pytest.mark.hypothesis
def test_no_order_of_claims_and_losses_gives_an_attempt_two_outcomes(database_url: str, home: Path) -> None:
    with asyncio.Runner() as runner:

        class Here(Leases):
            pass

        async def prepared() -> Executor:
            executor = Executor(database_url, home)
            await executor.create()
            return executor

        Here.executor, Here.runner = runner.run(prepared()), runner
        _explore(Here)
        runner.run(Here.executor.runtime.engine.dispose())


def _explore(machine: type[RuleBasedStateMachine]) -> None:
    few = settings(max_examples=examples(15), stateful_step_count=25, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=few)
