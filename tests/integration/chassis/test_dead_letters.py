"""What cannot be handled is set aside with what depends on it, in order, and nothing else waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from sqlalchemy.event import listen

from schemas.envelope import Event, Unreadable, encode
from schemas.topics import DISCARDS, REQUESTS
from services.chassis.kernel import metrics, store
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.deadletters.conversion import row_of
from services.chassis.kernel.deadletters.listing import LetterFilter, ListedLetter, find, page
from services.chassis.kernel.deadletters.models import Fault, LetterState
from services.chassis.kernel.operations import handling
from services.chassis.kernel.operations.handling import NoSuchLetter, NotPossibleNow, Retried, drain_free
from services.chassis.kernel.records import Record, RecordId, event_in
from services.chassis.kernel.statements import INSERT_POSITION
from services.chassis.kernel.transaction.batch import Decider, Poll, apply_batch
from services.chassis.replay import rebuild as replay
from services.chassis.serving.http import application
from services.chassis.serving.service import Service
from tests.log import read_all
from tests.toy import Toy, until


def cannot_handle(toy: Toy, *ids: str) -> None:
    """From now on the handling of these events fails."""
    toy.domain.poison = lambda event: event.id in ids


def can_handle_all(toy: Toy) -> None:
    toy.domain.poison = lambda event: False


async def letters(toy: Toy, **wanted: str) -> list[ListedLetter]:
    async with toy.engine.connect() as connection:
        found = await find(connection, LetterFilter.model_validate({"limit": 1000, **wanted}))
    return [letter for letter in found if toy.prefix in str(letter.key)]


async def retry(toy: Toy, place: RecordId) -> Retried:
    return await handling.retry(toy.engine, toy.runtime().handling, place)


async def differences(toy: Toy) -> int:
    return (await replay.verify(toy.runtime().projection)).differences


async def has(toy: Toy, failed: int, parked: int) -> bool:
    found = await letters(toy)
    return [letter.state for letter in found] == ["failed"] * failed and sum(len(one.parked) for one in found) == parked


async def decided(toy: Toy, count: int) -> bool:
    tallies = await toy.tallies()
    return sum(tally.refused for tally in tallies.values()) == count and await toy.scalar("SELECT count(*) = 0 FROM outbox")


@asynccontextmanager
async def one_failed_and_two_parked(toy: Toy) -> AsyncIterator[tuple[Service, ListedLetter, list[str]]]:
    """The job `bad`: requested; then a request that cannot be handled, and two cancels behind it. Other jobs go on."""
    async with toy.running() as service:
        await toy.send(toy.requested("bad"))
        await until(lambda: decided(toy, 1))
        events = [toy.requested("bad"), toy.cancelled("bad"), toy.cancelled("bad")]
        cannot_handle(toy, events[0].id)
        await toy.send(events[0], toy.requested("good"), *events[1:], *(toy.requested(f"{n}") for n in range(20)))
        await until(lambda: decided(toy, 22))
        await until(lambda: has(toy, 1, 2))
        (letter,) = await letters(toy)
        yield service, letter, [event.id for event in events]


async def test_later_records_of_the_same_aggregate_are_parked_and_everything_else_flows_on(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (service, letter, ids):
        assert service.health.ready
        assert (letter.event_type, letter.attempts, letter.event_id) == ("JobRequested", 3, ids[0])
        assert letter.error == "ValueError: this job is poison"
        async with toy.engine.connect() as connection:
            assert "raise ValueError" in str((await repository.show(connection, letter.record_id)).stack)  # type: ignore[union-attr]
        assert [one.event_id for one in letter.parked] == ids[1:]
        assert {one.blocked_by for one in letter.parked} == {letter.offset}
        assert (await toy.tallies())["bad"].requests == 1
        gauge = metrics.DEAD_LETTERS.labels(toy.name, "parked")
        await until(lambda: gauge._value.get() == 2)
        copies = await copied(toy)
    assert [dict(copy.headers)["ce_id"].decode() for copy in copies] == ids[:1]
    assert dict(copies[0].headers)["dlq_attempts"] == b"3"


async def copied(toy: Toy) -> list[Any]:
    topic = f"neuroweaver.{toy.name}.dlq"

    async def there() -> bool:
        return bool(await read_all(toy.settings.kafka_bootstrap, topic))

    await until(there)
    return await read_all(toy.settings.kafka_bootstrap, topic)


async def test_a_retry_drains_the_parked_records_in_order_and_leaves_what_the_log_says(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (_, letter, ids):
        assert await differences(toy) == 0
        can_handle_all(toy)
        done = await retry(toy, letter.record_id)
        assert (len(done.applied), done.failed, done.parked) == (3, None, 0)
        assert (await toy.tallies())["bad"].order[1:] == tuple(ids)
        assert await letters(toy) == []
        await toy.send(toy.cancelled("bad"))
        await until(lambda: knows(toy, 5))
        assert await toy.scalar("SELECT count(*) = count(DISTINCT id) FROM ledger")
        assert await differences(toy) == 0


async def knows(toy: Toy, facts: int) -> bool:
    return len((await toy.tallies())["bad"].order) == facts


async def test_what_fails_again_stays_with_all_behind_it_and_says_how_often_it_was_tried(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (_, letter, _):
        done = await retry(toy, letter.record_id)
        assert (done.applied, done.parked) == ((), 2)
        assert done.failed is not None
        assert done.failed.attempts == 4
        assert await has(toy, 1, 2)


async def test_a_parked_record_that_fails_holds_up_those_behind_it(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (_, letter, ids):
        cannot_handle(toy, ids[1])
        done = await retry(toy, letter.record_id)
        assert done.failed is not None
        assert (len(done.applied), done.failed.event_id, done.parked) == (1, ids[1], 1)
        (now,) = await letters(toy)
        assert [one.event_id for one in now.parked] == ids[2:]
        can_handle_all(toy)
        assert await differences(toy) == 0


async def test_a_parked_record_is_not_tried_before_the_one_it_waits_for(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (_, letter, _):
        with pytest.raises(NotPossibleNow, match=rf"waits for .*:{letter.offset}; retry or discard that one"):
            await retry(toy, letter.parked[1].record_id)
        with pytest.raises(NoSuchLetter, match="no dead letter"):
            await retry(toy, (letter.topic, letter.partition, 10**9))


async def test_what_an_operator_left_half_drained_is_drained_by_the_service(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (_, letter, ids):
        can_handle_all(toy)
        assert (
            await handling._try(toy.engine, toy.runtime().handling, letter.record_id) is None
        )  # and here the process ends
        await until(lambda: knows(toy, 4))
        assert (await toy.tallies())["bad"].order[1:] == tuple(ids)


async def test_two_operators_who_retry_at_once_apply_nothing_twice(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (_, letter, ids):
        can_handle_all(toy)
        done = await asyncio.gather(*(retry(toy, letter.record_id) for _ in range(4)), return_exceptions=True)
        assert {type(one) for one in done} <= {Retried, NoSuchLetter}
        await until(lambda: knows(toy, 4))
        assert (await toy.tallies())["bad"].order[1:] == tuple(ids)
        assert await toy.scalar("SELECT count(*) = count(DISTINCT id) FROM ledger")


async def test_a_discard_is_a_fact_that_a_replay_and_a_service_with_an_empty_database_honour(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (_, letter, ids):
        done = await handling.discard(toy.engine, toy.runtime().handling, letter.record_id, "sent by mistake", "ada")
        assert (len(done.applied), done.parked) == (2, 0)
        can_handle_all(toy)
        assert await differences(toy) == 0
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))
        with pytest.raises(NotPossibleNow, match="cannot be undone"):
            await retry(toy, letter.record_id)
    log = await read_all(toy.settings.kafka_bootstrap, DISCARDS.name)
    (fact,) = [record for record in log if record.key == toy.name.encode()]
    assert b'"reason":"sent by mistake","discarded_by":"ada"' in fact.value
    before = await toy.tallies()
    await toy.lose_database()
    async with toy.running():
        await until(lambda: decided(toy, 22))
        await until(lambda: knows(toy, 3))
        assert (await toy.tallies())["bad"].order[1:] == tuple(ids[1:])
        assert {name: tally.order for name, tally in (await toy.tallies()).items()} == {
            name: tally.order for name, tally in before.items()
        }
        assert await differences(toy) == 0


async def test_a_retried_record_in_whose_place_a_repetition_counts_is_given_up_as_a_fact(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release that read it first could not read it, and its sender has sent it again meanwhile."""
    event = toy.requested("again")
    unread: list[int] = []

    def as_an_earlier_release(record: Record, handled: Any) -> Any:
        if (record.key or b"").endswith(b"again") and not unread:
            unread.append(record.offset)
            raise Unreadable("an earlier release cannot read it")
        return event_in(record, handled)

    monkeypatch.setattr("services.chassis.kernel.transaction.batch.event_in", as_an_earlier_release)
    async with toy.running():
        await toy.send(event)
        await until(lambda: toy.scalar("SELECT count(*) = 1 FROM dead_letter"))
        await toy.send(event)
        await until(lambda: decided(toy, 1))
        (letter,) = await letters(toy)
        with pytest.raises(NotPossibleNow, match="was discarded: the same event was sent again"):
            await retry(toy, letter.record_id)
        assert await differences(toy) == 0
        assert await toy.scalar("SELECT state FROM dead_letter") == "discarded"


async def test_a_record_that_the_database_refuses_is_found_by_bisection(toy: Toy) -> None:
    events = [toy.requested(f"{number:03}") for number in range(100)]
    await toy.send(*events)
    toy.ledger.refused = events[57].id
    async with toy.running():
        await until(lambda: decided(toy, 99))
        (letter,) = await letters(toy)
    assert (letter.event_id, letter.state) == (events[57].id, "failed")
    assert "invalid input syntax for type integer" in letter.error
    assert await toy.scalar("SELECT count(*) = count(DISTINCT id) AND count(*) = 198 FROM ledger")


@pytest.mark.parametrize("position", [0, 1, 3, 4])
async def test_poison_at_any_position_of_a_batch_costs_nothing_but_itself(toy: Toy, position: int) -> None:
    """All records have one key, and so one partition and one batch."""
    events = [toy.requested("bad") if n == position else toy.cancelled("bad") for n in range(5)]
    cannot_handle(toy, events[position].id)
    await toy.send(*events, toy.requested("good"))
    async with toy.running():
        await until(lambda: has(toy, 1, 4 - position))
        if position:
            await until(lambda: knows(toy, position))
        can_handle_all(toy)
        (letter,) = await letters(toy)
        await retry(toy, letter.record_id)
    assert (await toy.tallies())["bad"].order == tuple(event.id for event in events)


async def test_a_partition_that_fails_by_and_large_stops_instead_of_becoming_dead_letters(toy: Toy) -> None:
    toy.domain.poison = lambda event: event.type == "JobRequested"
    events = [toy.requested(f"{number}") for number in range(120)]
    async with toy.running() as service:
        await toy.send(*events)
        await until(lambda: "10 records in a row fail" in service.health.missing.get("handling", ""))
        await until(lambda: len(service.health.missing["handling"].split(";")) >= 1)
        stopped = metrics.STOPPED.labels(toy.name)
        await until(lambda: stopped._value.get() >= 1)
        found = await letters(toy)
        per_partition = [sum(one.partition == partition for one in found) for partition in range(REQUESTS.partitions)]
        assert max(per_partition) == 9
        can_handle_all(toy)
        await until(lambda: decided(toy, 120 - len(found)), 60)
        for letter in found:
            await retry(toy, letter.record_id)
        assert await letters(toy) == []
        await until(lambda: decided(toy, 120))


async def test_one_that_lost_its_partition_leaves_the_flag_to_the_one_that_has_its_lock(toy: Toy) -> None:
    """Otherwise it takes back that records are withheld, in the transaction beside the one in which they begin to be."""
    async with toy.engine.begin() as owner:
        await owner.execute(INSERT_POSITION, [{"topic": REQUESTS.name, "partition": 0}])
    async with toy.engine.begin() as owner:
        await store.lock_positions(owner, [(REQUESTS.name, 0)])
        async with asyncio.timeout(30):
            await apply_batch(Decider(toy.transactions, toy.domain), Poll({}, {}, {(REQUESTS.name, 0, 0): Fault("poison")}))


def held(event: Event, offset: int) -> Any:
    value, headers = encode(event)
    key = event.correlation_id.encode()
    return SimpleNamespace(
        topic=REQUESTS.name, partition=0, offset=offset, timestamp=0, key=key, headers=headers, value=value
    )


async def test_an_operator_who_ends_a_drain_does_not_take_back_what_a_batch_withholds_meanwhile(toy: Toy) -> None:
    partition, known = (REQUESTS.name, 0), toy.runtime().handling
    event = toy.requested("bad")
    failed = row_of(held(event, 0), "failed", Fault("no"), names=["tally/bad"], event=event)
    async with toy.engine.begin() as connection:
        await connection.execute(INSERT_POSITION, [{"topic": REQUESTS.name, "partition": 0}])
    async with toy.engine.begin() as batch:
        await store.lock_positions(batch, [partition])
        draining = asyncio.create_task(handling._drain(toy.engine, known, partition))
        await until(
            lambda: toy.scalar(
                "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )
        await repository.insert(batch, [failed])
        await repository.flag(batch, partition)
    await draining
    assert await toy.scalar("SELECT withheld FROM position")


async def test_a_failed_record_does_not_overtake_an_earlier_one_of_what_it_turns_out_to_touch(toy: Toy) -> None:
    """The later one could not even be opened, so that only its key was known."""
    first, second = toy.requested("bad"), toy.cancelled("bad")
    letters = [
        row_of(held(first, 0), "failed", Fault("no"), names=[f"tally/{first.correlation_id}"], event=first),
        row_of(held(second, 1), "failed", Fault("no"), names=[f"/{second.correlation_id}"]),
    ]
    async with toy.engine.begin() as connection:
        await connection.execute(INSERT_POSITION, [{"topic": REQUESTS.name, "partition": 0}])
        await repository.insert(connection, letters)
    with pytest.raises(
        NotPossibleNow, match=f"{REQUESTS.name}:0:1 waits for {REQUESTS.name}:0:0; retry or discard that one"
    ):
        await retry(toy, (REQUESTS.name, 0, 1))
    for offset in (0, 1):
        await retry(toy, (REQUESTS.name, 0, offset))
    assert (await toy.tallies())["bad"].order == (first.id, second.id)


async def test_operators_see_retry_and_discard_over_http(toy: Toy) -> None:
    async with one_failed_and_two_parked(toy) as (service, letter, _):
        path = f"/api/v1/dead-letters/{toy.name}"
        one = f"{path}/{letter.topic}/{letter.partition}/{letter.offset}"
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=application([service])), base_url="http://toy")
        async with client:
            listed = (await client.get(path, params={"type": "JobRequested", "error": "POISON"})).json()
            assert listed["counts"]["parked"] == 2
            assert [len(found["parked"]) for found in listed["dead_letters"] if found["offset"] == letter.offset] == [2]
            assert (await client.get(path, params={"error": "no such words"})).json()["dead_letters"] == []
            assert (await client.get(path, params={"state": "odd"})).status_code == 422
            assert (await client.get(one)).json()["stack"]
            assert (await client.get(f"{path}/x/0/0")).status_code == 404
            assert (await client.post(f"{one}/discard", json={"reason": "", "discarded_by": "ada"})).status_code == 422
            again = (await client.post(f"{one}/retry")).json()
            assert again["failed"]["attempts"] == 4
            done = await client.post(f"{one}/discard", json={"reason": "sent by mistake", "discarded_by": "ada"})
            assert len(done.json()["applied"]) == 2
            assert (await client.post(f"{one}/retry")).status_code == 409


async def test_thousands_of_parked_records_are_listed_and_drained_with_a_few_statements_each_and_no_body_twice(
    toy: Toy,
) -> None:
    """One failed record with a row of parked ones of a megabyte behind it, and as many of another aggregate that stay."""
    count, body = 120, b"x" * 1_000_000
    first, stays = toy.requested("first"), toy.requested("stays")
    events = [
        first,
        stays,
        *(toy.cancelled("first") for _ in range(count)),
        *(toy.cancelled("stays") for _ in range(count)),
    ]
    parked_rows = []
    for offset, event in enumerate(events):
        value, headers = encode(event)
        head = {first.correlation_id: 0, stays.correlation_id: 1}[event.correlation_id]
        record: Any = SimpleNamespace(
            topic=REQUESTS.name, partition=0, offset=offset, timestamp=0, key=event.correlation_id.encode(), headers=headers,
            value=value[:-1] + b',"x":"' + body + b'"}',
        )  # fmt: skip
        state: LetterState = "failed" if offset < 2 else "parked"
        behind = None if offset < 2 else head
        names = [f"tally/{event.correlation_id}"]
        parked_rows.append(row_of(record, state, Fault("no"), names=names, blocked_by=behind, event=event))
    async with toy.engine.begin() as connection:
        await connection.execute(INSERT_POSITION, [{"topic": REQUESTS.name, "partition": 0}])
        for row in parked_rows:
            await repository.insert(connection, [row])
    statements: list[str] = []
    listen(toy.engine.sync_engine, "before_cursor_execute", lambda _c, _u, statement, *_: statements.append(statement))

    async with toy.engine.connect() as connection:
        seen = await page(connection, LetterFilter(limit=100))
        assert (len(seen.letters) + sum(len(one.parked) for one in seen.letters)) <= 1000
        assert seen.letters[0].value_bytes is not None
        assert seen.letters[0].value_bytes > len(body)
        following = await page(connection, LetterFilter(limit=100, after=seen.next))
    assert {one.record_id for one in following.letters}.isdisjoint({one.record_id for one in seen.letters})
    assert not [statement for statement in statements if "SELECT topic" in statement and " value," in statement]

    statements.clear()
    known = toy.runtime().handling
    await drain_free(toy.engine, known)
    assert len(statements) == 1  # nothing is free, which one statement tells

    statements.clear()
    done = await handling.retry(toy.engine, known, (REQUESTS.name, 0, 0))
    assert (len(done.applied), done.failed, done.parked) == (count + 1, None, count)
    bodies = [statement for statement in statements if " value," in statement and "SELECT" in statement]
    assert len(bodies) == count + 1
    assert len(statements) < 20 * (count + 1)
    assert (await toy.tallies())["first"].order == tuple(
        event.id for event in events if event.correlation_id == first.correlation_id
    )
