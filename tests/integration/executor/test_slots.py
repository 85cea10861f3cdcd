"""Who is next, and what runs at once: turns of requesters, slots, and a large attempt among small ones. Real PostgreSQL."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from schemas.jobs import StepNeed, StepPriorityChanged, StepResult
from schemas.recipes.feedback import FeedbackSettings, JudgeSettings
from schemas.steps import LabelSettings
from services.chassis.executor import work
from services.chassis.executor.devices import Device, no_devices
from services.chassis.executor.needs import NOTHING, Need, need_of
from services.chassis.executor.slots import Allocation, Free, Machine, Slots, Used
from services.chassis.executor.statements import CLAIM
from services.chassis.executor.work import Lease, Process, Room, claim
from services.chassis.settings import ServiceSettings
from tests.executor import Executor, Script
from tests.steps import request
from tests.toy import until

MB = 2**20
MACHINE = Machine(cores=8, memory_mb=8000, step_cores=8, step_memory_mb=2000)


def room(cores: int = 8, memory_mb: int = 8000, device_mb: int | None = None, all_device_mb: int = 0) -> Room:
    return Room(MACHINE, Free(cores, memory_mb, device_mb), all_device_mb)


async def claimed(executor: Executor, times: int = 100, **free: Any) -> str:
    """Claim up to `times` attempts and return the names of their jobs in order."""
    names = []
    for number in range(times):
        lease = await claim(executor.runtime.engine, f"lease-{number}", 60, room=room(**free))
        if lease is None:
            break
        names.append(lease.key.partition("/")[0])
    return " ".join(names)


async def needs(executor: Executor, job: str, **columns: int) -> None:
    for name, value in columns.items():
        await executor.execute(f"UPDATE work SET {name} = :value WHERE key LIKE :key", value=value, key=f"{job}/%")


async def small(executor: Executor, *jobs: str) -> None:
    for job in jobs:
        await needs(executor, job, cores=1, memory_mb=1000, device_mb=0)


async def test_requesters_take_turns_and_each_has_its_oldest_job_first(executor: Executor) -> None:
    await executor.deliver(*(request(f"a{number}", requester="a") for number in range(4)))
    await executor.deliver(request("b0", requester="b"), request("b1", requester="b"), request("c0", requester="c"))
    assert await claimed(executor) == "a0 b0 c0 a1 b1 a2 a3"


async def test_a_requester_that_comes_later_does_not_catch_up_the_turns_it_did_not_ask_for(executor: Executor) -> None:
    await executor.deliver(*(request(f"a{number}", requester="a") for number in range(6)))
    assert await claimed(executor, 3) == "a0 a1 a2"
    await executor.deliver(*(request(f"b{number}", requester="b") for number in range(3)))
    assert await claimed(executor) == "b0 a3 b1 a4 b2 a5"


async def test_priority_comes_before_every_turn(executor: Executor) -> None:
    await executor.deliver(
        request("a0", requester="a"), request("b0", requester="b"), request("a1", requester="a", priority=1)
    )
    assert await claimed(executor) == "a1 a0 b0"


async def test_the_next_step_of_a_job_that_has_begun_needs_no_further_turn(executor: Executor) -> None:
    await executor.deliver(*(request(f"a{number}", requester="a") for number in range(3)))
    await executor.deliver(request("old", step="train", requester="a", results={"prepare": StepResult()}))
    await executor.deliver(request("retried", attempt=2, requester="a"))
    assert await claimed(executor) == "a0 old retried a1 a2"


async def test_what_does_not_fit_waits_and_the_next_that_fits_is_claimed(executor: Executor) -> None:
    await executor.deliver(request("large"), request("small"))
    await small(executor, "small")
    assert await claimed(executor, cores=4, memory_mb=4000) == "small"
    assert await claimed(executor) == "large"


async def test_main_memory_and_the_memory_of_a_gpu_count_like_cores(executor: Executor) -> None:
    await executor.deliver(request("a"))
    await small(executor, "a")
    await needs(executor, "a", device_mb=3000)
    assert await claimed(executor, memory_mb=999) == ""
    assert await claimed(executor, device_mb=2000, all_device_mb=8000) == ""
    assert await claimed(executor, device_mb=3000, all_device_mb=8000) == "a"


async def test_more_than_the_whole_machine_runs_alone(executor: Executor) -> None:
    await executor.deliver(request("huge"))
    await needs(executor, "huge", cores=64, memory_mb=10**6)
    assert await claimed(executor, cores=7) == ""
    assert await claimed(executor) == "huge"


async def test_a_large_attempt_is_passed_over_a_limited_number_of_times_and_then_the_slots_are_kept_for_it(
    executor: Executor,
) -> None:
    names = [f"s{number}" for number in range(work._PASSES + 2)]
    await executor.deliver(request("large"), *(request(name) for name in names))
    await small(executor, *names)
    for name in names[: work._PASSES]:
        assert await claimed(executor, 1, cores=4) == name
    assert await claimed(executor, 1, cores=4) == "", "small attempts are waiting, but the slots are kept"
    assert await claimed(executor, 1) == "large"
    assert await claimed(executor, 1, cores=4) == names[work._PASSES]


async def test_a_cancelled_attempt_needs_no_slot_to_be_ended(executor: Executor) -> None:
    await executor.deliver(request("a"))
    await executor.execute("UPDATE work SET cancel = true")
    assert await claimed(executor, cores=0, memory_mb=0) == "a"


async def test_a_queue_filled_again_from_the_attempts_keeps_the_turns(executor: Executor) -> None:
    await executor.deliver(*(request(f"a{number}", requester="a") for number in range(2)), request("b0", requester="b"))
    await executor.execute("DELETE FROM work")
    await work.requeue_open(executor.runtime.engine)
    assert await claimed(executor) == "a0 b0 a1"


async def test_five_small_attempts_run_at_once_and_one_of_unknown_need_runs_alone(executor: Executor) -> None:
    script = Script()
    await executor.deliver(*(request(f"s{number}") for number in range(5)), request("unknown"))
    await small(executor, *(f"s{number}" for number in range(5)))
    async with executor.working(script, slot_cores=5, slot_memory_mb=5000):
        await until(lambda: len(script.runs) == 5)
        await asyncio.sleep(0.3)
        assert {found.request.job_id for found, _ in script.runs} == {f"s{number}" for number in range(5)}
        script.gate.set()
        await until(lambda: len(script.runs) == 6)


async def test_the_number_of_workers_is_the_most_that_run_at_once(executor: Executor) -> None:
    script = Script()
    await executor.deliver(*(request(f"s{number}") for number in range(3)))
    async with executor.working(script, workers=2, slot_cores=9, step_cores=1, step_memory_mb=1):
        await until(lambda: len(script.runs) == 2)
        await asyncio.sleep(0.3)
        assert len(script.runs) == 2
        script.gate.set()
        await until(lambda: len(script.runs) == 3)


def test_a_step_of_unknown_need_counts_the_whole_machine_or_the_share_of_one_gpu() -> None:
    settings = ServiceSettings(slot_cores=16, slot_memory_mb=64_000)
    assert Machine.of(settings) == Machine(16, 64_000, 16, 16_000)
    assert Machine.of(settings, devices=8) == Machine(16, 64_000, 2, 8_000)
    assert Machine.of(settings, processes=2).memory_mb == 32_000, "each of two processes needs what one needs"
    assert Machine.of(settings.model_copy(update={"step_cores": 99})).step_cores == 16


async def slots_of(*devices: Device, together: int = 1) -> Slots:
    slots = Slots(MACHINE, lambda: devices, together)
    await slots.look()
    return slots


async def test_slots_give_the_gpu_with_the_most_free_memory_and_count_what_runs_there() -> None:
    slots = await slots_of(Device(24_000, 10_000), Device(24_000, 24_000))
    assert slots.free() == Free(8, 8000, 24_000, (0,))
    with slots.taken(Need(1, 1000, 8000), (0,)), slots.taken(Need(1, 1000, 20_000), (1,)):
        assert slots.free() == Free(6, 6000, 10_000, (0,)), "others use the first one, where 16,000 would be left"
    with slots.taken(NOTHING, ()) as none:
        assert none == Allocation((), 0, 0)
    assert slots.free() == Free(8, 8000, 24_000, (0,))


async def test_what_other_processes_of_the_machine_run_is_counted_like_what_this_one_runs() -> None:
    slots = await slots_of(Device(24_000, 24_000), Device(24_000, 24_000))
    others = [Used(Need(2, 1000, 20_000), (0,)), Used(Need(None, None, 0), ())]
    assert slots.free(others) == Free(-2, 5000, 24_000, (1,))
    with slots.taken(Need(1, 500, None), (1,)):
        assert slots.free(others) == Free(-3, 4500, 4000, (0,))
    assert slots.free() == Free(8, 8000, 24_000, (0,))


async def test_an_attempt_that_is_split_gets_several_gpus_with_room_on_each() -> None:
    slots = await slots_of(Device(24_000, 24_000), Device(16_000, 16_000), Device(24_000, 24_000), together=2)
    assert slots.free()[2:] == (24_000, (0, 2))
    with slots.taken(Need(1, 1000, 20_000), (0, 2)) as place:
        assert place == Allocation((0, 2), 1, 2)
        assert slots.free().device_mb == 4_000, "one with 16,000 is free, but two are needed"
    assert slots.free().device_mb == 24_000


async def test_two_processes_of_one_machine_share_its_slots_and_those_of_another_do_not(executor: Executor) -> None:
    names = [f"s{number}" for number in range(6)]
    await executor.deliver(*(request(name) for name in names))
    await small(executor, *names)
    await needs(executor, "s3", device_mb=1000)
    machine = Machine(cores=2, memory_mb=8000, step_cores=2, step_memory_mb=2000)

    async def claims(process: str, host: str = "here") -> str | None:
        slots = Slots(machine, lambda: [Device(24_000, 24_000)])
        await slots.look()

        def beside(others: Sequence[Used]) -> Room:
            return Room(machine, slots.free(others), slots.device_mb)

        lease = await claim(
            executor.runtime.engine, f"{process}-{len(taken)}", 60, room=Process(host, f"{process}-{len(taken)}", beside)
        )
        taken.append(lease)
        return None if lease is None else lease.key.partition("/")[0]

    taken: list[Lease | None] = []
    assert [await claims("first"), await claims("second"), await claims("third")] == ["s0", "s1", None]
    assert [await claims("far", host="there"), await claims("far", host="there")] == ["s2", "s3"]
    assert taken[-1] is not None
    assert taken[-1].gpus == (0,)
    first = taken[0]
    assert first is not None
    assert first.gpus == ()
    await work.release(executor.runtime.engine, first)
    assert await claims("third") == "s0"


async def test_processes_of_one_machine_that_claim_at_once_do_not_take_more_than_it_has(executor: Executor) -> None:
    names = [f"s{number}" for number in range(8)]
    await executor.deliver(*(request(name) for name in names))
    await small(executor, *names)
    machine = Machine(cores=3, memory_mb=8000, step_cores=3, step_memory_mb=2000)

    async def claims(number: int) -> Lease | None:
        slots = Slots(machine, no_devices)
        shared = Process("here", f"p{number}", lambda others: Room(machine, slots.free(others)))
        return await claim(executor.runtime.engine, f"lease-{number}", 60, room=shared)

    found = await asyncio.gather(*map(claims, range(8)))
    assert sum(lease is not None for lease in found) == 3


def test_a_step_needs_what_its_kind_does_and_a_judge_elsewhere_needs_nothing_here() -> None:
    assert need_of(request("a")) == Need(None, None, None)
    assert need_of(request("a", step="label", kind="label")) == Need(None, None, None)
    rules = LabelSettings(base_model="m", feedback=FeedbackSettings(judge=JudgeSettings(kind="rules")))
    assert need_of(request("a", step="label", kind="label").model_copy(update={"settings": rules})).cores == 0


def test_an_estimate_counts_before_the_kind_and_doubles_after_each_attempt_that_ran_out_of_memory() -> None:
    on_processor = request("a", need=StepNeed(memory_bytes=1000 * MB + 1))
    assert need_of(on_processor) == Need(None, 1001, None)
    on_gpu = request("a", need=StepNeed(memory_bytes=2000 * MB, device_bytes=500 * MB))
    assert need_of(on_gpu) == Need(1, 2000, 500)
    assert need_of(on_gpu.model_copy(update={"memory_failures": 2})) == Need(1, 8000, 2000)
    assert need_of(on_gpu.model_copy(update={"memory_failures": 10**6})).memory_mb == 2**31 - 1


async def test_as_many_run_at_once_as_their_estimates_allow_and_a_large_one_gets_its_turn(executor: Executor) -> None:
    on_gpu = StepNeed(memory_bytes=500 * MB, device_bytes=6000 * MB)
    large = StepNeed(memory_bytes=500 * MB, device_bytes=20_000 * MB)
    names = [f"s{number}" for number in range(work._PASSES + 8)]
    await executor.deliver(*(request(name, need=on_gpu) for name in names[:4]), request("large", need=large))
    await executor.deliver(*(request(name, need=on_gpu) for name in names[4:]))
    slots = await slots_of(Device(24_000, 24_000))
    running: list[tuple[str, Any]] = []
    begun: list[str] = []
    while len(begun) < len(names) + 1:
        room = Room(MACHINE, slots.free(), slots.device_mb)
        if (lease := await claim(executor.runtime.engine, f"lease-{len(begun)}", 60, room=room)) is not None:
            held = slots.taken(lease.need, lease.gpus)
            held.__enter__()
            begun.append(lease.key.partition("/")[0])
            running.append((lease.key, held))
            assert len(running) <= 4, "24,000 MB hold four of 6,000"
        else:
            key, held = running.pop(0)
            held.__exit__(None, None, None)
            await executor.execute("DELETE FROM work WHERE key = :key", key=key)
    assert begun[:4] == names[:4]
    assert begun.index("large") <= 4 + work._PASSES
    assert begun[-1] == names[-1]


async def test_a_claim_reads_as_many_rows_of_a_long_queue_as_of_a_short_one(executor: Executor) -> None:
    async def rows_read() -> int:
        given = {**work.claim_values("lease", 60, room()), "without": [], "only_cancelled": False}
        async with executor.runtime.engine.connect() as connection:
            found = await connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {CLAIM.text}"), given)
            plan = found.scalar_one()[0]["Plan"]
            await connection.rollback()
        return sum(_rows(plan))

    def _rows(plan: dict[str, Any]) -> list[int]:
        here = plan["Actual Rows"] * plan["Actual Loops"] if plan["Node Type"].endswith("Scan") else 0
        return [here, *(rows for part in plan.get("Plans", ()) for rows in _rows(part))]

    await executor.deliver(*(request(f"j{number}", requester=f"r{number % 7}") for number in range(40)))
    await executor.execute("ANALYZE work")
    few = await rows_read()
    await executor.deliver(*(request(f"k{number}", requester=f"r{number % 7}") for number in range(960)))
    await executor.execute("ANALYZE work")
    assert await rows_read() <= few


async def test_a_new_priority_moves_an_attempt_that_waits(executor: Executor) -> None:
    await executor.deliver(request("a"), request("b"))
    await executor.deliver(StepPriorityChanged(job_id="b", step="evaluate", attempt=1, kind="evaluate", priority=3))
    assert await claimed(executor) == "b a"


async def test_a_priority_that_is_read_before_its_request_counts(executor: Executor) -> None:
    await executor.deliver(StepPriorityChanged(job_id="b", step="evaluate", attempt=1, kind="evaluate", priority=3))
    await executor.deliver(request("a"), request("b"))
    assert await claimed(executor) == "b a"
