"""A projection is what the log says: verified, rebuilt and healed while it serves, and left alone by whatever fails on the way."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from threading import Thread
from typing import Any

import httpx2
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.chassis.kernel.aggregate import Ref
from services.chassis.replay import fold as folding
from services.chassis.replay import reading, runs
from services.chassis.replay import rebuild as replay
from services.chassis.replay.checks import ReplayRefused
from services.chassis.replay.projection import Projection
from services.chassis.replay.row import rebuild_row, row_ref
from services.chassis.replay.runs import Busy
from services.chassis.replay.status import status
from services.chassis.serving.http import application
from tests.toy import Toy, until

HAND = """UPDATE tally SET state = jsonb_set(state, '{requests}', '7') WHERE key = :key"""


def projection_of(toy: Toy) -> Projection:
    return toy.runtime().projection


async def fill(toy: Toy, count: int = 20) -> None:
    """`count` jobs, decided."""
    events = [toy.requested(f"{number:03}") for number in range(count)]
    async with toy.running():
        await toy.send(*events, *events[:3])  # and some duplicates
        await decided(toy, count)


async def decided(toy: Toy, count: int) -> None:
    async def done() -> bool:
        tallies = await toy.tallies()
        return len(tallies) == count and all(tally.refused for tally in tallies.values())

    await until(done)
    await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))


async def by_hand(toy: Toy, name: str, statement: str = HAND) -> None:
    async with toy.engine.begin() as connection:
        await connection.execute(text(statement), {"key": toy.prefix + name})


async def schemas_of(toy: Toy) -> list[str]:
    async with toy.engine.connect() as connection:
        rows = await connection.execute(text("SELECT nspname FROM pg_namespace WHERE nspname ~ '^(projection|shadow)'"))
        return sorted(name for (name,) in rows)


async def test_a_projection_that_serves_is_what_the_log_says_at_any_moment(toy: Toy) -> None:
    async with toy.running():
        for wave in range(3):
            sending = asyncio.create_task(toy.send(*(toy.requested(f"{wave}-{number:03}") for number in range(60))))
            found = await replay.verify(projection_of(toy))
            assert found.differences == 0
            await sending
        await decided(toy, 180)
        found = await replay.verify(projection_of(toy))
    assert (found.rows, found.differences) == (180, 0)
    assert await schemas_of(toy) == ["projection"]


async def test_verify_never_decides(toy: Toy) -> None:
    await fill(toy)

    def explode(*_: object) -> None:
        raise AssertionError("a replay decided")

    toy.domain.decide = explode  # type: ignore[method-assign, assignment]
    assert (await replay.verify(projection_of(toy))).differences == 0
    await replay.rebuild(projection_of(toy))


async def test_a_replay_lets_others_go_on_however_much_it_has_to_fold(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else heartbeats wait as long as a part of the log takes, and on a slow machine the run loses its lock."""
    await fill(toy, 40)
    monkeypatch.setattr(reading, "GIVE_WAY_EVERY", 8)
    done = Counter[str]()

    def counted(name: str) -> None:
        work = getattr(folding, name)

        def counting(*given: Any, **more: Any) -> Any:
            done[name] += 1
            return work(*given, **more)

        monkeypatch.setattr(folding, name, counting)

    counted("opened")
    counted("fold_record")
    strides, before = set[int](), Counter[str]()

    async def noted() -> None:
        nonlocal before
        strides.update((done - before).values())
        before = done.copy()
        await asyncio.sleep(0)

    monkeypatch.setattr(reading, "give_way", noted)
    assert (await replay.verify(projection_of(toy))).differences == 0
    assert done["fold_record"] >= 40
    assert max(strides) <= 8


async def test_a_row_changed_by_hand_is_found_and_healed(toy: Toy) -> None:
    await fill(toy)
    await by_hand(toy, "004")
    await by_hand(toy, "005", "DELETE FROM tally WHERE key = :key")
    await by_hand(toy, "new", "INSERT INTO tally (key, created_at) VALUES (:key, now())")
    found = await replay.verify(projection_of(toy))
    (table,) = found.tables
    assert found.differences == 3
    changed, missing, extra = table.shown
    assert (changed.kind, changed.key) == ("changed", toy.prefix + "004")
    assert [(field.field, field.live, field.replayed) for field in changed.fields] == [("state.requests", 7, 1)]
    assert (missing.kind, extra.kind) == ("missing", "extra")
    before = await replay.rebuild(projection_of(toy))
    assert before.differences == 3
    assert (await replay.verify(projection_of(toy))).differences == 0
    assert (await toy.tallies())["004"].requests == 1
    assert await schemas_of(toy) == ["projection", before.old_version]
    assert await replay.drop_old(projection_of(toy)) == [before.old_version]
    assert await schemas_of(toy) == ["projection"]


async def test_a_rebuild_under_traffic_loses_nothing_and_decides_nothing_twice(toy: Toy) -> None:
    async with toy.running():
        await toy.send(*(toy.requested(f"a{number:03}") for number in range(100)))

        async def traffic() -> None:
            for number in range(100):
                await toy.send(toy.requested(f"b{number:03}"))

        sending = asyncio.create_task(traffic())
        for _ in range(2):
            await replay.rebuild(projection_of(toy))
        await sending
        await decided(toy, 200)
    answers = [record.key for record in await toy.log()]
    assert len(answers) == len(set(answers)) == 200
    assert (await replay.verify(projection_of(toy))).differences == 0
    indexes = "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'projection'"
    assert await toy.scalar(indexes) == "tally_due_at tally_pkey"


async def test_own_events_that_the_log_does_not_have_yet_are_folded_from_the_outbox(toy: Toy) -> None:
    await fill(toy, 3)
    runtime = toy.runtime()
    async with runtime.transact([Ref("tally", toy.prefix + "000")]) as command:
        command.unit.apply(_another_refusal(toy, "000"))
    assert await toy.scalar("SELECT count(*) FROM outbox") == 1
    assert (await replay.verify(projection_of(toy))).differences == 0
    await replay.rebuild(projection_of(toy))
    assert (await toy.tallies())["000"].refused == 2
    async with toy.running():
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))
        await until(lambda: _caught_up(toy))
    assert (await toy.tallies())["000"].refused == 2
    await runtime.engine.dispose()


async def test_one_row_is_healed_alone(toy: Toy) -> None:
    await fill(toy, 5)
    await by_hand(toy, "001")
    await by_hand(toy, "002")
    await by_hand(toy, "003", "DELETE FROM tally WHERE key = :key")
    projection = projection_of(toy)
    for name in ("001", "003"):
        assert await rebuild_row(projection, row_ref(projection, toy.prefix + name, None))
    assert not await rebuild_row(projection, row_ref(projection, toy.prefix + "001", None))
    (table,) = (await replay.verify(projection)).tables
    assert [row.key for row in table.shown] == [toy.prefix + "002"]
    with pytest.raises(ReplayRefused, match="neither the log nor the projection has it"):
        await rebuild_row(projection, row_ref(projection, "no-such-job", None))
    with pytest.raises(ReplayRefused, match="'jobs' is not a table of this projection; use tally"):
        row_ref(projection, "x", "jobs")


@pytest.mark.parametrize("records", [1, 15])
async def test_a_rebuild_that_is_cancelled_leaves_everything_as_it_was(toy: Toy, records: int) -> None:
    await fill(toy)
    await by_hand(toy, "004")

    def stop(progress: runs.Progress) -> None:
        if progress.done >= records and progress.phase != "comparing":
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await replay.rebuild(projection_of(toy), on_progress=stop)
    assert await schemas_of(toy) == ["projection"]
    assert (await toy.tallies())["004"].requests == 7
    assert (await status(projection_of(toy))).runs[0].state == "cancelled"


async def test_what_a_killed_rebuild_left_is_cleared_by_the_next(toy: Toy) -> None:
    await fill(toy, 3)
    async with toy.engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA shadow"))
        await connection.execute(text("CREATE TABLE shadow.tally (left_over int)"))
        await connection.execute(
            text("INSERT INTO replay (id, kind, state, phase, done, total) VALUES ('x', 'rebuild', 'running', '', 0, 0)")
        )
    assert [run.state for run in (await status(projection_of(toy))).runs] == ["failed"]
    await replay.rebuild(projection_of(toy))
    assert (await toy.tallies()).keys() == {"000", "001", "002"}


async def test_one_replay_runs_at_a_time(toy: Toy) -> None:
    await fill(toy, 3)
    async with runs.running(toy.engine, "rebuild"):
        with pytest.raises(runs.Busy, match="another verify or rebuild"):
            await replay.verify(projection_of(toy))
        assert (await status(projection_of(toy))).runs[0].state == "running"
    await replay.verify(projection_of(toy))


async def test_a_record_that_cannot_be_folded_ends_it_and_is_named(toy: Toy) -> None:
    await fill(toy, 3)
    toy.domain.poison = lambda event: event.correlation_id == toy.prefix + "001"
    with pytest.raises(Exception, match=r"neuroweaver\.(requests|jobs):\d+:\d+: ValueError: this job is poison"):
        await replay.rebuild(projection_of(toy))
    assert await schemas_of(toy) == ["projection"]
    run = (await status(projection_of(toy))).runs[0]
    assert run.state == "failed"
    assert "this job is poison" in str(run.error)


async def test_a_log_that_lost_its_first_records_is_refused_unless_accepted(toy: Toy, unique: Callable[[str], str]) -> None:
    await fill(toy, 1)
    topic = unique("short")
    admin = AIOKafkaAdminClient(bootstrap_servers=toy.settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    async with AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap) as producer:
        for _ in range(5):
            await producer.send_and_wait(topic, b"{}")
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=3)})
    await admin.close()
    projection = replace(projection_of(toy), topics=(topic,))
    with pytest.raises(ReplayRefused, match=f"complete only {topic}:0 from offset 3.*--accept-incomplete"):
        await replay.rebuild(projection)
    assert (await toy.tallies()).keys() == {"000"}
    assert (await replay.verify(projection, accept_incomplete=True)).tables[0].shown[0].kind == "extra"


async def test_a_database_that_is_newer_or_older_than_the_code_is_refused(toy: Toy) -> None:
    await fill(toy, 1)
    async with toy.engine.begin() as connection:
        await connection.execute(text("INSERT INTO operational.alembic_version VALUES ('chassis_9999')"))
    with pytest.raises(ReplayRefused, match="chassis_9999, which this version does not know"):
        await replay.rebuild(projection_of(toy))
    async with toy.engine.begin() as connection:
        await connection.execute(text("DELETE FROM operational.alembic_version"))
        await connection.execute(text("INSERT INTO operational.alembic_version VALUES ('chassis_0001')"))
    with pytest.raises(ReplayRefused, match="older than this code; run `neuroweaver migrate`"):
        await replay.verify(projection_of(toy))


async def test_after_a_rebuild_the_changed_rows_are_asked_for_decisions(toy: Toy) -> None:
    """A row whose state was lost says nothing; what it says again may have fallen due meanwhile."""
    toy.delay = toy.domain.delay = timedelta(seconds=0)
    await toy.send(toy.requested("late"))
    async with toy.running():
        await until(lambda: toy.scalar("SELECT count(*) = 2 FROM ledger WHERE id IS NOT NULL HAVING count(*) >= 2"))
    await by_hand(toy, "late")
    await replay.rebuild(projection_of(toy))
    assert await toy.scalar("SELECT key FROM sweep") == toy.prefix + "late"
    async with toy.running():
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM sweep"))
    assert (await replay.verify(projection_of(toy))).differences == 0


async def test_an_operator_verifies_and_rebuilds_over_http(toy: Toy) -> None:
    await fill(toy, 3)
    await by_hand(toy, "001")
    app = application([toy.service()])
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test/api/v1/projections") as client:
            await until(lambda: _ok(client, toy))

            async def ended(kind: str) -> dict[str, Any]:
                async def look() -> dict[str, Any] | None:
                    (newest, *_) = (await client.get(f"/{toy.name}")).json()["runs"]
                    return newest if newest["kind"] == kind and newest["state"] != "running" else None

                await until(look)
                found = await look()
                assert found is not None
                return found

            assert (await client.post(f"/{toy.name}/verify")).status_code == 202
            assert (await ended("verify"))["result"] == {"rows": 3, "differences": 1}
            assert (await client.post(f"/{toy.name}/rebuild", json={"key": toy.prefix + "001"})).status_code == 202
            assert (await ended("rebuild"))["result"]["changed"] is True
            assert (await client.post(f"/{toy.name}/rebuild")).status_code == 202
            old = (await ended("rebuild"))["result"].get("old_version")
            assert (await client.delete(f"/{toy.name}/old-versions")).json() == {"old_versions": [old] if old else []}
            assert (await client.post(f"/{toy.name}/rebuild", json={"key": "x", "table": "y"})).status_code == 422
            assert (await client.post(f"/{toy.name}/cancel")).status_code == 409
            async with runs.running(toy.engine, "rebuild"):
                answer = await client.post(f"/{toy.name}/verify")
            assert (answer.status_code, answer.json()["title"]) == (409, "Not now")


async def _ok(client: httpx2.AsyncClient, toy: Toy) -> bool:
    return (await client.get(f"/{toy.name}")).status_code == 200


async def _caught_up(toy: Toy) -> bool:
    return (await status(projection_of(toy))).lag == 0


def _another_refusal(toy: Toy, name: str) -> Any:
    from schemas.jobs import JobRejected
    from services.chassis.kernel.aggregate import Decision

    return Decision(Ref("tally", toy.prefix + name), toy.prefix + name, JobRejected(job_id=toy.prefix + name, reasons=()))


async def test_a_replay_whose_process_stands_still_makes_way_and_touches_nothing_when_it_goes_on(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_IDLE_SECONDS", 4.0)  # well above a heartbeat
    await fill(toy)
    others: list[replay.Rebuilt] = []

    def frozen(_: object) -> None:
        """Nothing of this loop runs meanwhile, as if its process had been stopped; another process rebuilds."""
        if others:
            return
        time.sleep(8)
        other = Thread(target=lambda: others.append(asyncio.run(replay.rebuild(projection_of(toy)))))
        other.start()
        other.join()

    with pytest.raises((Busy, DBAPIError)):
        await replay.rebuild(projection_of(toy), on_progress=frozen)
    (done,) = others
    assert await schemas_of(toy) == ["projection", done.old_version]
    assert (await replay.verify(projection_of(toy))).differences == 0


async def test_what_a_replay_that_was_overtaken_wrote_is_not_committed(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_IDLE_SECONDS", 1.0)
    with pytest.raises(DBAPIError):  # noqa: PT012 (the block is what fails at its end)
        async with runs.running(toy.engine, "verify") as (progress, _):
            time.sleep(3)  # noqa: ASYNC251 (it stands still)
            async with runs.running(toy.engine, "rebuild") as (other, _):
                async with toy.engine.begin() as connection:
                    await other.require(connection)
                with pytest.raises(Busy, match="was frozen"):  # noqa: PT012 (so that it is not committed)
                    async with toy.engine.begin() as connection:
                        await connection.execute(text("INSERT INTO operational.ledger VALUES ('late')"))
                        await progress.require(connection)
    assert await toy.scalar("SELECT count(*) FROM operational.ledger") == 0
    async with toy.engine.connect() as connection:
        assert [(run.kind, run.state) for run in await runs.last_runs(connection)] == [
            ("rebuild", "done"),
            ("verify", "failed"),
        ]
