"""Whatever goes wrong between a poll and its transaction, a consumer on a real broker applies every record once, in order."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.chassis import consumer as consuming
from services.chassis.batch import apply_batch
from services.chassis.consumer import Consumer
from tests.toy import Toy, until

Apply = Callable[..., Awaitable[Any]]


def failing(times: int, error: Callable[[], BaseException]) -> Apply:
    """`apply_batch`, which fails so often first when it is given records."""
    real, failed = apply_batch, 0

    async def apply(engine: Any, domain: Any, effects: Any, groups: Any, *rest: Any, **more: Any) -> Any:
        nonlocal failed
        if failed < times and any(str(record.key).count(domain.prefix) for group in groups.values() for record in group):
            failed += 1
            raise error()
        return await real(engine, domain, effects, groups, *rest, **more)

    return apply


async def sends_and_sees_all(toy: Toy, jobs: int = 30) -> None:
    """Send a few at a time, so that there are many polls; every job is answered once."""
    for start in range(0, jobs, 5):
        await toy.send(*(toy.requested(f"{number:02}") for number in range(start, start + 5)))

    async def all_answered() -> bool:
        return len(await toy.tallies()) == jobs

    await until(all_answered, seconds=60)
    assert {(tally.requests, tally.refused) for tally in (await toy.tallies()).values()} == {(1, 1)}


async def test_an_error_without_a_text_loses_nothing(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncpg's time-outs have none."""
    async with toy.running() as service:
        monkeypatch.setattr(consuming, "apply_batch", failing(3, TimeoutError))
        await sends_and_sees_all(toy)
        await until(lambda: service.health.ready, what=lambda: service.health.missing)


async def test_an_error_that_cannot_even_be_said_loses_nothing(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> float:
        raise RuntimeError("what comes after a failure fails too")

    async with toy.running():
        monkeypatch.setattr(consuming, "apply_batch", failing(3, TimeoutError))
        monkeypatch.setattr(Consumer, "_failed", broken)
        await sends_and_sees_all(toy)
