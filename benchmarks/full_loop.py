"""Events per second through the full loop, against a native twin and against the usual handler, one after the other in turns."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from uuid import uuid4

from sqlalchemy.engine import make_url

from benchmarks.arms import chassis
from benchmarks.load import Times, answered_at, count_records, create_topics, fill, rate, wait_for_records
from schemas.topics import JOBS

ARMS = ("chassis", "native", "per message")
_PATIENCE_SECONDS = 900


@dataclass(frozen=True)
class Servers:
    """The addresses of Kafka and PostgreSQL for the arms."""

    bootstrap: str
    database_url: str


@asynccontextmanager
async def process(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an arm during the block; it ends when its standard input ends."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"benchmarks.arms.{module}", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert child.stdin is not None
    try:
        yield child
        if child.returncode is not None:
            raise RuntimeError(f"the arm {module} ended by itself with {child.returncode}")
    finally:
        child.stdin.close()
        try:
            async with asyncio.timeout(30):
                await child.wait()
        except TimeoutError:
            child.kill()


async def answers_of_chassis(servers: Servers, count: int) -> Times:
    """Return the sorted times in milliseconds at which the chassis sent each of `count` answers."""
    name, topic, _ = await _prepared(servers, count)
    before = await count_records(servers.bootstrap, JOBS.name)
    async with process("chassis", servers.bootstrap, servers.database_url, name, topic):
        await wait_for_records(servers.bootstrap, JOBS.name, before + count, _PATIENCE_SECONDS)
    return (await answered_at(servers.bootstrap, JOBS.name))[before:]


async def run_arm(servers: Servers, arm: str, count: int) -> float:
    """Return the events per second of one arm on its own database and topics."""
    if arm == "chassis":
        return rate(await answers_of_chassis(servers, count))
    name, topic, answers = await _prepared(servers, count)
    url = make_url(servers.database_url).set(database=f"neuroweaver_{name}")
    url = url.set(drivername="postgresql+asyncpg" if arm == "per message" else "postgresql")
    module = arm.replace(" ", "_")
    async with process(module, servers.bootstrap, url.render_as_string(hide_password=False), topic, answers):
        await wait_for_records(servers.bootstrap, answers, count, _PATIENCE_SECONDS)
    return rate(await answered_at(servers.bootstrap, answers))


async def _prepared(servers: Servers, count: int) -> tuple[str, str, str]:
    """Create a database with its tables, a topic with `count` requests and one for answers; returns the names of all
    three."""
    name = f"bench_{uuid4().hex[:8]}"
    topic, answers = f"bench.{name}.requests", f"bench.{name}.answers"
    await create_topics(servers.bootstrap, topic, answers)
    await chassis.prepare(servers.bootstrap, servers.database_url, name, topic)
    await fill(servers.bootstrap, topic, count)
    return name, topic, answers


async def measure(servers: Servers, *, rounds: int, events: int, events_per_message: int) -> dict[str, list[float]]:
    """Return the events per second of each arm, round by round; every round runs all arms."""
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in ARMS:
            rates[arm].append(await run_arm(servers, arm, events_per_message if arm == "per message" else events))
    return rates


def summary(rates: dict[str, list[float]]) -> dict[str, float]:
    """Return the medians of the ratios of the same round."""
    native = [ours / twin for ours, twin in zip(rates["chassis"], rates["native"], strict=True)]
    usual = [ours / theirs for ours, theirs in zip(rates["chassis"], rates["per message"], strict=True)]
    return {
        "events_per_s": median(rates["chassis"]),
        "ratio_native": median(native),
        "ratio_per_message": median(usual),
    }
