"""One process of the toy service that may be told where to die: it kills itself there with SIGKILL.

The points are planted by wrapping functions in this process only; the code of the product knows nothing of them.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from schemas.envelope import Event
from schemas.requests import JobRequested
from services.chassis.kernel import metrics
from services.chassis.kernel.consuming import polls
from services.chassis.kernel.consuming.consumer import Consumer
from services.chassis.kernel.relay.relay import Relay
from services.chassis.kernel.transaction import commands
from services.chassis.process.gc_tuning import spare_the_collector
from services.chassis.process.logging import configure
from services.chassis.process.transient import wait_or_stop
from tests.toy import Toy

POINTS = (
    "after fetch",
    "inside the transaction",
    "after commit",
    "after the relay's send",
    "before the row's removal",
    "before the offset commit",
)


@dataclass(frozen=True)
class Orders:
    """The configuration of a member."""

    kafka: str
    database_url: str
    name: str
    point: str | None = None
    times: int = 1
    """How often it passes the fault point before it dies there."""
    mended: bool = True
    """Whether requests marked as poison can be handled."""
    database_seconds: float = 30.0
    """Its statement time-out."""
    elsewhere: bool = False
    """Whether it belongs to another deployment with its own database."""
    instance: str | None = None
    """Its static name in the group, if it has one."""


@dataclass(frozen=True)
class Standing:
    """The report of a member about itself."""

    ready: bool
    refusals: int
    """How often Kafka refused a request because of its generation."""
    missing: dict[str, str]
    removed: int = 0
    """Removed unread offsets, according to its metric."""


def main(orders: Orders, log: str, told: "Connection[Standing, object]") -> None:
    """Serve until SIGTERM in this process; logs go to a file, reports to the parent."""
    sys.stderr = Path(log).open("w", buffering=1)  # noqa: SIM115 (open as long as the process lives)
    os.dup2(sys.stderr.fileno(), 2)
    configure("WARNING")
    refusals = Refusals()
    logging.getLogger("aiokafka").addHandler(refusals)
    spare_the_collector()
    toy = Toy(
        orders.kafka,
        orders.database_url,
        Path("unused"),
        name=orders.name,
        elsewhere=orders.elsewhere,
        batch_records=200,
        database_seconds=orders.database_seconds,
        instance=orders.instance,
    )
    if not orders.mended:
        toy.domain.poison = is_poison
    if orders.point is not None:
        plant(orders.point, orders.times)
    asyncio.run(serve(toy, refusals, told.send))


def is_poison(event: Event) -> bool:
    """Return whether the sender marked the event as poison."""
    return isinstance(event.data, JobRequested) and event.data.request.get("requester") == "poison"


class Refusals(logging.Handler):
    """Counts the requests that Kafka refuses because of the member's generation, from aiokafka's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        self.count += "OffsetCommit failed" in said or "generation id is not" in said


async def serve(toy: Toy, refusals: Refusals, tell: Callable[[Standing], None]) -> None:
    """Run the service until it must end, and report each change of its state."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runtime = toy.runtime()
    told: Standing | None = None
    async with runtime.run(()):
        while not stop.is_set():
            missing = dict(runtime.health.missing)
            now = Standing(not missing, refusals.count, missing, _removed())
            if told is None or _heart(now) != _heart(told):
                told = now
                tell(now)
            await wait_or_stop(stop, 0.05)
    await toy.engine.dispose()


def _heart(standing: Standing) -> tuple[object, ...]:
    """Return the part of the state whose changes are reported."""
    return (
        standing.ready,
        standing.refusals,
        standing.removed,
        standing.missing.get("alone"),
        standing.missing.get("unread"),
    )


def _removed() -> int:
    return int(sum(sample.value for metric in metrics.UNREAD_REMOVED.collect() for sample in metric.samples))


def plant(point: str, times: int) -> None:
    """Make the process die at `point` when it passes it for the `times`th time with records in work."""
    passed = 0

    def here() -> None:
        nonlocal passed
        passed += 1
        if passed >= times:
            os.kill(os.getpid(), signal.SIGKILL)

    match point:
        case "after fetch":
            _before(Consumer, "handle", here)
        case "inside the transaction":
            _after(commands, "write", here)
        case "after commit":
            _after(polls, "apply_batch", here)
        case "after the relay's send":
            _before(Relay, "_acknowledged", here)
        case "before the row's removal":
            _after(Relay, "_acknowledged", here)
        case "before the offset commit":
            _before(Consumer, "_commit", here)
        case _:
            raise ValueError(f"point {point!r}: choose one of {', '.join(POINTS)}")


Wrapped = Callable[..., Awaitable[Any]]


def _before(owner: Any, name: str, here: Callable[[], None]) -> None:
    real: Wrapped = getattr(owner, name)

    async def wrapped(*arguments: Any, **named: Any) -> Any:
        here()
        return await real(*arguments, **named)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, here: Callable[[], None]) -> None:
    real: Wrapped = getattr(owner, name)

    async def wrapped(*arguments: Any, **named: Any) -> Any:
        found = await real(*arguments, **named)
        here()
        return found

    setattr(owner, name, wrapped)
