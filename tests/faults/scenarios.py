"""What is done to the service while its load goes on; the short form runs in the tests, the long one in the soak."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import text

from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.operations import handling
from services.chassis.postgres.locks import RELAY_LOCK
from services.devstack.kafka import KafkaServer
from services.devstack.postgres import PostgresServer
from tests.faults.field import Field, Member
from tests.faults.frozen import frozen
from tests.faults.history import Verdict
from tests.faults.member import POINTS
from tests.faults.other_logs import made_again, removed_unread
from tests.faults.proxy import Way, proxy_to_database
from tests.faults.scale import PER_SECOND, Scale, Scenario
from tests.faults.small_disk import fill
from tests.standby import standby
from tests.toy import Toy, until

_RELAYING = """SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock AND granted
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_GIVES_UP_SECONDS = 300
_IMPATIENT_SECONDS = 2.0
_HANG_SECONDS = 8.0
"""Longer than the members' statement time-out and their Kafka sessions."""
_MORTAL = "mortal"
_SLOW_SECONDS = 0.05
"""Delay of every packet in each direction."""
_CATCH_UP_SECONDS = 900.0
"""Over such a slow connection a backlog of tens of thousands takes minutes, and a lagging member is not ready."""


async def kill_at(field: Field, scale: Scale, point: str) -> Verdict:
    """Repeatedly kill the process at one fault point; each time another process takes over."""
    chance = random.Random(f"{scale.seed} {point}")
    async with field.load(scale.events, PER_SECOND):
        for _ in range(scale.repetitions):
            await _dies_at(field, point, 1 if point == "before the offset commit" else chance.randint(2, 6))
        await field.join(instance=_MORTAL)
    return await field.verdict()


async def kill_at_each_point(field: Field, scale: Scale) -> Verdict:
    """Kill a process at each fault point in turn, at the first records in work there."""
    for _ in range(scale.repetitions):
        for point in POINTS:
            async with field.load(scale.events // scale.repetitions // len(POINTS), PER_SECOND):
                await _dies_at(field, point, 1)
    await field.join(instance=_MORTAL)
    return await field.verdict()


async def _dies_at(field: Field, point: str, times: int) -> None:
    """All members that die this way have the same name, so the group gives the next one the partitions of the last, whose
    session is still alive."""
    member = await field.join(point=point, times=times, ready=False, instance=_MORTAL)
    if await field.dies(member) != -signal.SIGKILL:
        raise AssertionError(f"the member was to die {point}")


async def bounce_consumer(field: Field, scale: Scale, *numbers: signal.Signals) -> Verdict:
    """Stop or kill one of two members, and start it again."""
    await field.join()
    async with field.load(scale.events, PER_SECOND):
        for number in numbers * scale.repetitions:
            member = await field.join()
            await asyncio.sleep(0.5)
            _clean(number, await field.leave(member, number))
    return await field.verdict()


async def bounce_relay(field: Field, scale: Scale, *numbers: signal.Signals) -> Verdict:
    """End the connection that relays, by stopping its process or on the server."""
    member = await field.join()
    await field.join()
    async with field.load(scale.events, PER_SECOND):
        for number in numbers * scale.repetitions:
            if number is signal.SIGTERM:
                _clean(number, await field.leave(member, number))
                member = await field.join()
            else:
                async with field.toy.engine.begin() as connection:
                    await connection.execute(
                        text(_RELAYING.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")),
                        {"lock": RELAY_LOCK},
                    )
            await asyncio.sleep(1)
    return await field.verdict()


def _clean(number: signal.Signals, code: int) -> None:
    if number is signal.SIGTERM and code != 0:
        raise AssertionError(f"a member that drains ends with 0, not {code}")


async def bounce_broker(field: Field, scale: Scale, *numbers: signal.Signals) -> Verdict:
    """Stop or kill the only broker, and start it again."""
    return await _bounce_server(field, scale, field.stack.kafka, numbers)


async def bounce_database(field: Field, scale: Scale, *numbers: signal.Signals) -> Verdict:
    """Stop or kill PostgreSQL, and start it again."""
    return await _bounce_server(field, scale, field.stack.postgres, numbers)


async def _bounce_server(
    field: Field, scale: Scale, server: KafkaServer | PostgresServer | None, numbers: Sequence[signal.Signals]
) -> Verdict:
    assert server is not None
    await field.join()
    async with field.load(scale.events, PER_SECOND / len(numbers)):
        for number in (*numbers,) * scale.repetitions:
            await asyncio.sleep(1)
            await asyncio.to_thread(server.stop if number is signal.SIGTERM else server.kill)
            await asyncio.sleep(1)
            await asyncio.to_thread(server.start)
    await field.toy.engine.dispose()
    return await field.verdict()


async def hang(field: Field, scale: Scale, server: KafkaServer | PostgresServer | None) -> Verdict:
    """Freeze a server for longer than all time-outs, then continue it; members report it."""
    field.database_seconds = _IMPATIENT_SECONDS
    member = await field.join()
    async with field.load(scale.events, PER_SECOND):
        for _ in range(scale.repetitions):
            await asyncio.sleep(1)
            with frozen(server):
                begun = asyncio.get_running_loop().time()
                await until(lambda: not member.ready, what=lambda: "a hanging server was not noticed")
                await asyncio.sleep(begun + _HANG_SECONDS - asyncio.get_running_loop().time())
            await until(lambda: member.ready, what=lambda: member.said[-1])
    return await field.verdict()


async def rough_way(field: Field, scale: Scale) -> Verdict:
    """Make the connection to PostgreSQL swallow everything, then cut it, then slow it down; members report it while nothing
    gets through."""
    field.database_seconds = _IMPATIENT_SECONDS
    async with proxy_to_database(field.stack.database_url) as (proxy, through):
        field.way_to_database = through
        member = await field.join()
        ways: dict[Way, float] = {"black hole": 0.0, "deaf": 2 * _IMPATIENT_SECONDS, "refused": 0.0}
        async with field.load(scale.events, PER_SECOND):
            for _ in range(scale.repetitions):
                for way, seconds in ways.items():
                    await asyncio.sleep(0.5)
                    await proxy.become(way)
                    await until(lambda: not member.ready, what=lambda way=way: f"{way}: not noticed")
                    await asyncio.sleep(seconds)
                    await proxy.become("open", delay=_SLOW_SECONDS)
                    await until(lambda: member.ready, _CATCH_UP_SECONDS, what=lambda: member.said[-1])
        await proxy.become("open")
        return await field.verdict()


async def zombie(field: Field, scale: Scale) -> Verdict:
    """Freeze a member within a backlog for longer than its session, so that another takes over; then continue it."""
    for _ in range(scale.repetitions):
        async with field.load(scale.events // scale.repetitions, PER_SECOND):
            pass
        begun = await field.applied()
        sleeper = await field.join(ready=False)
        while await field.applied() == begun:
            await asyncio.sleep(0.01)
        sleeper.send(signal.SIGSTOP)
        other = await field.join(ready=False)
        await asyncio.sleep(field.toy.settings.session_timeout_ms / 1000 + 3)
        sleeper.send(signal.SIGCONT)
        await field.settled()
        for member in (sleeper, other):
            await field.leave(member, signal.SIGTERM)
    await field.join()
    return await field.verdict()


async def relay_frozen(field: Field, scale: Scale) -> Verdict:
    """Freeze the relaying process, so that it loses the lock and another one relays.

    What it sends after it continues are duplicates.
    """
    await field.join()
    async with field.load(scale.events, PER_SECOND):
        for _ in range(scale.repetitions):
            sleeper = field.members[0]
            await field.join()
            before = await _relaying(field)
            sleeper.send(signal.SIGSTOP)
            await until(lambda before=before: _relays_anew(field, before), 120, what=lambda: "no other process relays")
            sleeper.send(signal.SIGCONT)
            await asyncio.sleep(1)
            await field.leave(sleeper, signal.SIGTERM)
    return await field.verdict()


async def _relaying(field: Field) -> int | None:
    """Return the session that holds the relay's lock."""
    async with field.toy.engine.connect() as connection:
        pid: int | None = await connection.scalar(text(_RELAYING), {"lock": RELAY_LOCK})
        return pid


async def _relays_anew(field: Field, before: int | None) -> bool:
    return await _relaying(field) not in (None, before)


async def second_deployment(field: Field, scale: Scale) -> Verdict:
    """Let a process with its own database join under load repeatedly: it refuses and decides nothing."""
    twin = Toy(
        field.stack.kafka_bootstrap, field.stack.database_url, field.toy.settings.home, name=field.toy.name, elsewhere=True
    )
    await twin.create()
    await field.join()
    async with field.load(scale.events, PER_SECOND):
        for _ in range(scale.repetitions):
            stranger = await field.join(ready=False, elsewhere=True)
            await until(lambda stranger=stranger: _refuses(stranger), 120, what=lambda: "it does not refuse")
            await field.leave(stranger, signal.SIGTERM)
    verdict = await field.verdict()
    if await twin.tallies():
        raise AssertionError("the second deployment has decided")
    await twin.engine.dispose()
    return verdict


def _refuses(member: Member) -> bool:
    return any("another deployment" in standing.missing.get("alone", "") for _, standing in member.said)


async def read_only(field: Field, scale: Scale) -> Verdict:
    """Make PostgreSQL read-only for a while, as after a failover, and leave the sessions open that began then."""
    await field.join()
    async with field.load(scale.events, PER_SECOND):
        for _ in range(scale.repetitions):
            await asyncio.sleep(1)
            async with standby(field.toy):
                await asyncio.sleep(2)
    return await field.verdict()


async def coming_and_going(field: Field, scale: Scale) -> Verdict:
    """Let members join and leave every two seconds."""
    async with field.load(scale.events, PER_SECOND):
        for _ in range(scale.repetitions):
            member = await field.join(ready=False)
            await asyncio.sleep(2)
            if len(field.members) > 2:
                await field.leave(field.members[0], signal.SIGTERM)
        await field.leave(member, signal.SIGTERM)
        await field.join()
    return await field.verdict()


async def poison(field: Field, scale: Scale) -> Verdict:
    """Send many requests that cannot be handled; a corrected version retries them, and their jobs' events are in order."""
    member = await field.join(mended=False)
    async with field.load(scale.events, PER_SECOND, poison_every=50):
        await asyncio.sleep(1)
    await field.settled()
    await field.leave(member, signal.SIGTERM)
    await field.join()
    async with field.toy.engine.connect() as connection:
        failed = await repository.search(connection, "state = 'failed'", {}, scale.events)
        places = [letter.record_id for letter in failed]
    if not places:
        raise AssertionError("nothing was poisonous")
    for place in places:
        await handling.retry(field.toy.engine, field.toy.runtime().handling, place)
    return await field.verdict()


async def drain(field: Field, scale: Scale) -> Verdict:
    """Send SIGTERM under load: the member ends with exit code 0 within its grace period."""
    async with field.load(scale.events, PER_SECOND):
        for _ in range(scale.repetitions):
            member = await field.join()
            await asyncio.sleep(1)
            _clean(signal.SIGTERM, await field.leave(member, signal.SIGTERM))
        await field.join()
    return await field.verdict()


async def full_disk(field: Field, scale: Scale) -> Verdict:
    """Fill the broker's disk until the broker ends; when there is space again it starts and everything continues. The
    broker's data are on their own small file system.
    """
    kafka = field.stack.kafka
    assert kafka is not None
    filler = kafka.folder / "filler"
    await field.join()
    async with field.load(scale.events, PER_SECOND):
        for _ in range(scale.repetitions):
            await asyncio.sleep(1)
            await asyncio.to_thread(fill, filler)
            async with asyncio.timeout(_GIVES_UP_SECONDS):
                while kafka.process.running:
                    await asyncio.sleep(0.2)
            await asyncio.to_thread(kafka.stop)
            filler.unlink(missing_ok=True)
            await asyncio.to_thread(kafka.start)
    return await field.verdict()


def _bounce(what: Callable[..., Awaitable[Verdict]], *numbers: signal.Signals) -> Scenario:
    return lambda field, scale: what(field, scale, *numbers)


def _kill(point: str) -> Scenario:
    return lambda field, scale: kill_at(field, scale, point)


_DEATHS: dict[str, Scenario] = {
    **{f"SIGKILL {point}": _kill(point) for point in POINTS},
    "consumer ends cleanly": _bounce(bounce_consumer, signal.SIGTERM),
    "consumer is killed": _bounce(bounce_consumer, signal.SIGKILL),
    "relay ends cleanly": _bounce(bounce_relay, signal.SIGTERM),
    "relay is cut off": _bounce(bounce_relay, signal.SIGKILL),
    "broker ends cleanly": _bounce(bounce_broker, signal.SIGTERM),
    "broker is killed": _bounce(bounce_broker, signal.SIGKILL),
    "PostgreSQL ends cleanly": _bounce(bounce_database, signal.SIGTERM),
    "PostgreSQL is killed": _bounce(bounce_database, signal.SIGKILL),
}
_DEATHS_IN_SHORT: dict[str, Scenario] = {
    "SIGKILL at each point": kill_at_each_point,
    "consumer ends cleanly, and is killed": _bounce(bounce_consumer, signal.SIGTERM, signal.SIGKILL),
    "relay ends cleanly, and is cut off": _bounce(bounce_relay, signal.SIGTERM, signal.SIGKILL),
    "broker ends cleanly, and is killed": _bounce(bounce_broker, signal.SIGTERM, signal.SIGKILL),
    "PostgreSQL ends cleanly, and is killed": _bounce(bounce_database, signal.SIGTERM, signal.SIGKILL),
}
"""The same points with fewer starts."""
_OTHERS: dict[str, Scenario] = {
    "PostgreSQL hangs": lambda field, scale: hang(field, scale, field.stack.postgres),
    "Kafka hangs": lambda field, scale: hang(field, scale, field.stack.kafka),
    "the way to PostgreSQL is cut, swallows everything, is slow": rough_way,
    "PostgreSQL only reads": read_only,
    "a member sleeps past its session": zombie,
    "the relay is frozen": relay_frozen,
    "a second deployment": second_deployment,
    "members come and go": coming_and_going,
    "poison everywhere": poison,
    "SIGTERM under load": drain,
    "the topic is made again": made_again,
    "records are removed unread": removed_unread,
}
SCENARIOS = {**_DEATHS, **_OTHERS}
"""The scenarios by name; each takes as long as its load or its repetitions, whichever is longer."""
SHORT = {**_DEATHS_IN_SHORT, **_OTHERS}
"""The scenarios of the tests."""
FULL_DISK = "the broker's disk is full"
"""A separate scenario, since it needs a small file system; see `small_disk`."""
