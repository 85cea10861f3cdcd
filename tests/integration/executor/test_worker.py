"""What a worker announces, and when it keeps silent: against a real PostgreSQL, with a runner that the test scripts."""

import asyncio
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from schemas.jobs import FeedbackRecorded, StepCheckpointRequested, StepFault, StepResult, StepStarted
from schemas.progress import StepProgressed
from services.chassis.executor import dispatcher, lease_keeper, metrics, transactions, worker
from services.chassis.executor.attempts import attempt_ref, decision
from services.chassis.executor.folders import checkpoints_of
from services.chassis.executor.runner import Completed, Failed, Outcome, StopReason, UnderLocks, Work, WorkContext
from services.chassis.executor.work import claim
from services.chassis.kernel.aggregate import Ref
from tests.executor import Executor, Script
from tests.steps import cancel, request
from tests.toy import until

ASKED = request("a")
REF = attempt_ref("a", "evaluate", 1)
ABOUT = {"job_id": "a", "step": "evaluate", "attempt": 1, "kind": "evaluate"}
FEEDBACK = FeedbackRecorded(
    **ABOUT, judge="rules", candidates=4, comparisons=2, pairs=1, ties=1, invalid=0,
    agreement=None, position_consistency=None, longer_preferred=None,
)  # fmt: skip


def ended(executor: Executor, status: str) -> Any:
    async def check() -> bool:
        return await executor.status(REF) == status

    return check


def began(script: Script, times: int = 1) -> Any:
    return lambda: len(script.runs) == times


async def test_work_is_begun_done_and_announced_in_one_numbered_history(executor: Executor) -> None:
    script = Script(Completed(StepResult(metrics={"loss": 0.25})))
    script.gate.set()
    await executor.deliver(ASKED)
    async with executor.working(script):
        await until(ended(executor, "completed"))
    started, completed = await executor.outbox(REF)
    assert (started.ce_type, int(started.ce_sequence)) == ("neuroweaver.StepStarted", 1)
    assert (completed.ce_type, int(completed.ce_sequence)) == ("neuroweaver.StepCompleted", 2)
    assert completed.ce_causationid == started.ce_id
    assert started.ce_causationid == (await executor.state(REF)).opened_by
    assert {started.ce_correlationid, completed.ce_correlationid} == {"a"}
    assert started.ce_traceparent.split("-")[1] == completed.ce_traceparent.split("-")[1]
    assert (await executor.state(REF)).result == StepResult(metrics={"loss": 0.25})
    assert await executor.work() == []


async def test_new_work_wakes_an_idle_worker_at_once(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_POLL_SECONDS", 3600.0)
    script = Script()
    async with executor.working(script):
        await asyncio.sleep(0.5)
        await executor.deliver(ASKED)
        await until(began(script))
        script.gate.set()
        await until(ended(executor, "completed"))


async def test_a_worker_does_one_piece_of_work_at_a_time_and_two_do_two(executor: Executor) -> None:
    one, two = Script(), Script()
    await executor.deliver(*(request(name) for name in "abcd"))
    async with executor.working(one):
        await until(began(one))
        await asyncio.sleep(0.3)
        assert len(one.runs) == 1
        async with executor.working(two, workers=2, step_cores=1, slot_cores=3):
            await until(began(two, 2))
            await asyncio.sleep(0.3)
            assert len(two.runs) == 2
            one.gate.set()
            two.gate.set()
            await until(lambda: _all_done(executor))
    assert len({work.ref for work, _ in one.runs + two.runs}) == 4
    assert len({work.lease for work, _ in one.runs + two.runs}) == 4


async def _all_done(executor: Executor) -> bool:
    return await executor.work() == []


async def test_extra_decisions_come_before_the_outcome(executor: Executor) -> None:
    script = Script(Completed(StepResult(), [decision_of(FEEDBACK)]))
    script.gate.set()
    await executor.deliver(ASKED)
    async with executor.working(script):
        await until(ended(executor, "completed"))
    assert await executor.said(REF) == ["StepStarted", "FeedbackRecorded", "StepCompleted"]


def decision_of(data: FeedbackRecorded) -> Any:
    return decision(data, FeedbackRecorded, **data.model_dump(exclude=set(ABOUT)))


async def test_an_outcome_under_locks_is_decided_on_the_locked_states(executor: Executor) -> None:
    other = attempt_ref("b", "evaluate", 1)
    await executor.deliver(ASKED, request("b", not_before="2100-01-01T00:00:00Z"))

    def decide(states: Any, now: Any) -> Completed:
        return Completed(StepResult(facts={"b": states[other].status, "a": states[REF].status, "year": str(now.year)}))

    script = Script(UnderLocks((other,), decide))
    script.gate.set()
    async with executor.working(script):
        await until(ended(executor, "completed"))
    result = (await executor.state(REF)).result
    assert result is not None
    assert (result.facts["a"], result.facts["b"]) == ("running", "queued")


async def test_an_outcome_may_need_rows_that_only_the_locked_states_name(executor: Executor) -> None:
    other = attempt_ref("b", "evaluate", 1)
    await executor.deliver(ASKED, request("b", not_before="2100-01-01T00:00:00Z"))

    def decide(states: Any, now: Any) -> Completed:
        return Completed(StepResult(facts={"b": states[other].status}))

    def further(states: Any) -> tuple[Ref, ...]:
        return (other, REF) if states[REF].status == "running" else ()

    script = Script(UnderLocks((), decide, further))
    script.gate.set()
    async with executor.working(script):
        await until(ended(executor, "completed"))
    result = (await executor.state(REF)).result
    assert result is not None
    assert result.facts["b"] == "queued"


async def test_checkpoints_of_a_completed_step_are_removed_and_those_of_a_failed_one_kept(executor: Executor) -> None:
    folders = [checkpoints_of(executor.settings.home, name, "evaluate") for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)

    async def outcome(work: Work, _: WorkContext) -> Outcome:
        failed = work.request.job_id == "b"
        return Failed(StepFault(cause="memory", message="too large")) if failed else Completed(StepResult())

    await executor.deliver(ASKED, request("b"))
    async with executor.working(Script(outcome)):
        await until(lambda: _all_done(executor))
        await until(lambda: not folders[0].exists())
    assert folders[1].exists()


async def test_a_runner_that_raises_fails_the_attempt_and_the_worker_goes_on(executor: Executor) -> None:
    async def outcome(work: Work, _: WorkContext) -> Outcome:
        if work.request.job_id == "a":
            raise ZeroDivisionError("a \x00 bug")
        return Completed(StepResult())

    await executor.deliver(ASKED, request("b"))
    async with executor.working(Script(outcome)):
        await until(lambda: _all_done(executor))
    fault = (await executor.state(REF)).fault
    assert fault is not None
    assert (fault.cause, fault.message) == ("infrastructure", "ZeroDivisionError: a \ufffd bug")
    assert await executor.status(attempt_ref("b", "evaluate", 1)) == "completed"


async def test_an_outcome_that_cannot_be_recorded_fails_the_attempt(executor: Executor) -> None:
    def decide(states: Any, now: Any) -> Completed:
        raise ZeroDivisionError("a bug in the decision")

    script = Script(UnderLocks((), decide))
    script.gate.set()
    await executor.deliver(ASKED)
    async with executor.working(script):
        await until(ended(executor, "failed"))
    assert await executor.said(REF) == ["StepStarted", "StepFailed"]


async def test_a_result_that_no_database_stores_fails_the_attempt(executor: Executor) -> None:
    script = Script(Completed(StepResult(facts={"x": "\x00"})))
    script.gate.set()
    await executor.deliver(ASKED)
    async with executor.working(script):
        await until(ended(executor, "failed"))


# ---------------------------------------------------------------- cancelling


async def test_a_cancel_in_the_queue_ends_the_attempt_without_a_worker(executor: Executor) -> None:
    await executor.deliver(ASKED)
    await executor.deliver(cancel(ASKED))
    assert await executor.said(REF) == ["StepCancelled"]
    script = Script()
    async with executor.working(script):
        await asyncio.sleep(0.3)
    assert script.runs == []


async def test_a_cancel_stops_a_running_attempt_at_once_although_its_lease_is_long(executor: Executor) -> None:
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script, lease_seconds=600):
        await until(began(script))
        await asyncio.sleep(0.3)
        await executor.deliver(cancel(ASKED))
        await until(ended(executor, "cancelled"))
    assert script.runs[0][1].reason is StopReason.CANCEL
    assert await executor.said(REF) == ["StepStarted", "StepCancelled"]
    assert await executor.work() == []


async def test_a_result_that_comes_after_the_cancel_does_not_count_and_nor_do_its_decisions(executor: Executor) -> None:
    async def outcome(_: Work, context: WorkContext) -> Outcome:
        await context.stop.wait()
        return Completed(StepResult(), [decision_of(FEEDBACK)])

    await executor.deliver(ASKED)
    script = Script(outcome)
    async with executor.working(script):
        await until(began(script))
        await executor.deliver(cancel(ASKED))
        await until(ended(executor, "cancelled"))
    assert await executor.said(REF) == ["StepStarted", "StepCancelled"]


async def test_a_cancel_between_claim_and_start_leaves_the_worker_with_nothing(executor: Executor) -> None:
    await executor.deliver(ASKED)
    lease = await claim(executor.runtime.engine, "token", 60)
    assert lease is not None
    await executor.deliver(cancel(ASKED))
    assert await transactions.begin(executor.runtime, "worker", lease, 0) is None
    assert await executor.said(REF) == ["StepCancelled"]


async def test_a_lease_lost_between_claim_and_start_begins_nothing(executor: Executor) -> None:
    await executor.deliver(ASKED)
    lease = await claim(executor.runtime.engine, "slow", 60)
    assert lease is not None
    await executor.execute("UPDATE work SET lease = 'other'")
    assert await transactions.begin(executor.runtime, "worker", lease, 0) is None
    assert await executor.said(REF) == []


async def test_an_attempt_that_ends_every_worker_fails_in_the_end(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "STARTS_AT_MOST", 3)
    await executor.deliver(ASKED)
    for number in range(4):
        lease = await claim(executor.runtime.engine, f"worker-{number}", 60)
        assert lease is not None
        held = await transactions.begin(executor.runtime, f"worker-{number}", lease, 0)
        assert (held is None) == (number == 3)
        await executor.lapse()
    assert await executor.said(REF) == ["StepStarted", "StepStarted", "StepStarted", "StepFailed"]
    fault = (await executor.state(REF)).fault
    assert fault is not None
    assert fault.cause == "infrastructure"
    assert await executor.work() == []


async def test_a_cancelled_attempt_whose_worker_died_is_ended_by_the_next_without_a_run(executor: Executor) -> None:
    script = Script()
    await executor.deliver(ASKED)
    await claim(executor.runtime.engine, "dead", 0.1)
    async with executor.runtime.transact([REF]) as command:
        command.unit.apply(decision(ASKED, StepStarted, worker="dead"))
    await executor.deliver(cancel(ASKED))
    assert await executor.status(REF) == "cancelling"
    async with executor.working(script):
        await until(ended(executor, "cancelled"))
    assert script.runs == []


# ---------------------------------------------------------------- leases


async def _now_is_past(executor: Executor, moment: datetime) -> bool:
    ((past,),) = await executor.rows("SELECT clock_timestamp() > :moment", moment=moment)
    return bool(past)


async def test_a_running_attempt_keeps_its_lease_however_long_it_takes(executor: Executor) -> None:
    script, other = Script(), Script()
    await executor.deliver(ASKED)
    async with executor.working(script, lease_seconds=6), executor.working(other, lease_seconds=6):
        await until(lambda: len(script.runs) + len(other.runs) == 1)
        ((first_end,),) = await executor.rows("SELECT leased_until FROM work")
        await until(lambda: _now_is_past(executor, first_end))
        assert len(script.runs) + len(other.runs) == 1
        script.gate.set()
        other.gate.set()
        await until(ended(executor, "completed"))
    assert (await executor.state(REF)).starts == 1


async def test_whoever_was_taken_over_is_told_to_stop_hard_and_announces_nothing(executor: Executor) -> None:
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script, lease_seconds=3):
        await until(began(script))
        await executor.execute("UPDATE work SET lease = 'other', leased_until = now() + interval '1 hour'")
        context = script.runs[0][1]
        await asyncio.wait_for(context.lost.wait(), 120)
        script.gate.set()
        await asyncio.sleep(0.3)
    assert context.reason is StopReason.LEASE_LOST
    assert await executor.said(REF) == ["StepStarted"]
    (row,) = await executor.work()
    assert row.lease == "other"


async def test_an_old_token_cannot_conclude_even_when_its_holder_does_not_know_yet(executor: Executor) -> None:
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script, lease_seconds=600):
        await until(began(script))
        await executor.execute("UPDATE work SET lease = 'other'")
        script.gate.set()
        await asyncio.sleep(0.5)
    assert await executor.said(REF) == ["StepStarted"]
    assert await executor.status(REF) == "running"


async def test_a_worker_that_cannot_renew_stops_its_run_when_the_lease_has_surely_ended(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise OperationalError("renew", {}, ConnectionRefusedError("database away"))

    monkeypatch.setattr(lease_keeper, "renew", away)
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script, lease_seconds=1):
        await until(began(script))
        context = script.runs[0][1]
        await asyncio.wait_for(context.lost.wait(), 120)
    assert "StepFailed" not in await executor.said(REF)
    assert "StepCompleted" not in await executor.said(REF)


async def test_a_database_that_fails_once_while_the_lease_is_renewed_does_not_end_the_run(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []

    async def once_away(*_: Any) -> None:
        asked.append(None)
        if len(asked) == 1:
            raise OperationalError("checkpoint_wanted", {}, ConnectionRefusedError("database away"))

    monkeypatch.setattr(lease_keeper, "checkpoint_wanted", once_away)
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script, lease_seconds=60.0):
        await until(began(script))
        await executor.deliver(
            StepCheckpointRequested(job_id=ASKED.job_id, step=ASKED.step, attempt=ASKED.attempt, kind=ASKED.kind)
        )
        await until(lambda: len(asked) > 1)
        assert not script.runs[0][1].lost.is_set()


@pytest.mark.parametrize("hanging", ["renew", "checkpoint_wanted"])
async def test_a_renewal_that_hangs_does_not_keep_the_run_alive(
    executor: Executor, monkeypatch: pytest.MonkeyPatch, hanging: str
) -> None:
    hangs = asyncio.Event()

    async def hang(*_: Any) -> None:
        await hangs.wait()

    monkeypatch.setattr(lease_keeper, hanging, hang)
    monkeypatch.setattr(worker, "_CANCEL_SECONDS", 0.2)
    monkeypatch.setattr(lease_keeper, "_LEAVE_SECONDS", 0.2)
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script, lease_seconds=0.6):
        await until(began(script))
        await asyncio.wait_for(script.runs[0][1].lost.wait(), 120)
    hangs.set()


async def test_a_run_whose_lease_is_no_longer_kept_for_a_fault_of_ours_is_told_to_stop_hard(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("waiting for a signal is broken")

    script = Script()
    monkeypatch.setattr(lease_keeper.LeaseKeeper, "_notified", broken)
    await executor.deliver(ASKED)
    async with executor.working(script, lease_seconds=60.0):
        await until(began(script))
        context = script.runs[0][1]
        await asyncio.wait_for(context.lost.wait(), 120)
        script.gate.set()
    assert context.reason is StopReason.LEASE_LOST


async def test_an_outcome_waits_for_a_database_that_is_away(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OperationalError("x", {}, ConnectionRefusedError("away")), ConnectionResetError("away")]
    finish = transactions.finish

    async def sometimes(*arguments: Any) -> str | None:
        if failures:
            raise failures.pop()
        return await finish(*arguments)

    monkeypatch.setattr(worker, "finish", sometimes)
    script = Script()
    script.gate.set()
    await executor.deliver(ASKED)
    async with executor.working(script):
        await until(ended(executor, "completed"))
    assert await executor.said(REF) == ["StepStarted", "StepCompleted"]


async def test_a_worker_survives_errors_of_its_own(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Exception] = [ZeroDivisionError("a bug"), ConnectionResetError("away")]
    real = claim

    async def sometimes(*arguments: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(*arguments, **more)

    monkeypatch.setattr(dispatcher, "claim", sometimes)
    before = metrics.ERRORS.labels(executor.name)._value.get()
    script = Script()
    script.gate.set()
    await executor.deliver(ASKED)
    async with executor.working(script):
        await until(ended(executor, "completed"))
    assert metrics.ERRORS.labels(executor.name)._value.get() == before + 1, "only the bug counts as unexpected"


async def test_a_worker_that_works_is_well_and_one_that_cannot_claim_or_conclude_says_why(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    health, finish = executor.runtime.health, transactions.finish
    full = True

    async def disk_full(*arguments: Any) -> str | None:
        if full:
            raise OperationalError("x", {}, OSError("could not extend file: No space left on device"))
        return await finish(*arguments)

    monkeypatch.setattr(worker, "finish", disk_full)
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script, own=True):
        await until(began(script))
        assert worker.CONDITION not in health.missing, "it works, however long that takes"
        script.gate.set()
        await until(lambda: "No space left on device" in health.missing.get(worker.CONDITION, ""))
        full = False
        await until(ended(executor, "completed"))
        await until(lambda: worker.CONDITION not in health.missing)


# ---------------------------------------------------------------- draining


async def test_a_drain_gives_running_work_back_for_another_worker_to_take_over_at_once(executor: Executor) -> None:
    first, second = Script(), Script()
    await executor.deliver(ASKED)
    async with executor.working(first, lease_seconds=600) as stop:
        await until(began(first))
        stop.set()
    assert first.runs[0][1].reason is StopReason.DRAIN
    assert await executor.said(REF) == ["StepStarted"]
    second.gate.set()
    async with executor.working(second, lease_seconds=600):
        await until(ended(executor, "completed"))
    assert await executor.said(REF) == ["StepStarted", "StepStarted", "StepCompleted"]
    assert first.runs[0][0].lease != second.runs[0][0].lease


async def test_work_that_ends_during_the_drain_is_concluded(executor: Executor) -> None:
    async def outcome(_: Work, context: WorkContext) -> Outcome:
        await context.stop.wait()
        return Completed(StepResult())

    script = Script(outcome)
    await executor.deliver(ASKED)
    async with executor.working(script) as stop:
        await until(began(script))
        stop.set()
    assert await executor.status(REF) == "completed"


async def test_a_drain_waits_no_longer_than_its_grace_for_a_runner_that_does_not_listen(executor: Executor) -> None:
    async def deaf(_: Work, __: WorkContext) -> Outcome:
        await asyncio.sleep(1000)
        raise AssertionError

    script = Script(deaf)
    await executor.deliver(ASKED)
    async with asyncio.timeout(300), executor.working(script, drain_seconds=0.5) as stop:
        await until(began(script))
        stop.set()
    (row,) = await executor.work()
    assert row.lease is None
    assert await executor.said(REF) == ["StepStarted"]


async def test_an_idle_worker_drains_at_once(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_SECONDS", 3600.0)
    async with asyncio.timeout(300), executor.working(Script()) as stop:
        await asyncio.sleep(0.3)
        stop.set()


# ---------------------------------------------------------------- progress and starts


async def test_progress_names_its_cause_its_job_and_its_attempt(executor: Executor) -> None:
    async def outcome(_: Work, context: WorkContext) -> Outcome:
        context.progress(StepProgressed(**ABOUT, done=1, of=2))
        return Completed(StepResult())

    await executor.deliver(ASKED)
    async with executor.working(Script(outcome)):
        await until(ended(executor, "completed"))
    (event,) = executor.progress.events
    started, _ = await executor.outbox(REF)
    assert (event.causation_id, event.correlation_id, event.subject) == (started.ce_id, "a", REF.key)
    assert (event.sequence, event.source) == (None, "neuroweaver/trainer")
    assert event.traceparent.split("-")[1] == started.ce_traceparent.split("-")[1]
    assert event.traceparent != started.ce_traceparent


async def test_a_starting_worker_takes_up_work_that_only_the_projection_remembers(executor: Executor) -> None:
    await executor.deliver(ASKED)
    await executor.execute("DELETE FROM work")
    script = Script()
    script.gate.set()
    async with executor.working(script):
        await until(ended(executor, "completed"))


async def test_work_whose_attempt_has_ended_is_dropped_without_a_run(executor: Executor) -> None:
    script = Script()
    await executor.deliver(ASKED)
    row = (await executor.work())[0]
    await executor.deliver(cancel(ASKED))
    await executor.execute(
        "INSERT INTO work (key, priority, requested_at) VALUES (:key, 0, :at)", key=row.key, at=row.requested_at
    )  # fmt: skip
    async with executor.working(script):
        await until(lambda: _all_done(executor))
    assert script.runs == []
    assert await executor.said(REF) == ["StepCancelled"]


async def test_no_workers_run_nothing(executor: Executor) -> None:
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script, workers=0):
        await asyncio.sleep(0.2)
    assert script.runs == []
