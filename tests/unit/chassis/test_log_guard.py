"""What one look at the log may not decide alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.chassis.kafka.metadata import FoundLog, FoundTopic
from services.chassis.kernel import store
from services.chassis.kernel.consuming import seeking
from services.chassis.kernel.consuming.cursor import PartitionCursor
from services.chassis.kernel.consuming.identity import guard as guarding
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import PartitionStop, Span
from services.chassis.kernel.consuming.identity.guard import LogGuard
from services.chassis.process.health import Health

PLACE = ("neuroweaver.requests", 0)


async def test_a_log_that_ends_below_what_was_read_is_believed_when_it_is_seen_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A partition's new leader does not know at once how far readers may read."""
    ends = iter([7, 7, 9, 7, 7, 7])

    async def which_log(*_: object) -> FoundLog:
        return FoundLog("cluster", {PLACE[0]: FoundTopic("topic", frozenset({0}), 1, 1)})

    async def spans_of(*_: object) -> dict[tuple[str, int], Span]:
        return {PLACE: Span(0, next(ends))}

    async def nothing(*_: object) -> dict[Any, Any]:
        return {}

    @asynccontextmanager
    async def connect() -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(seeking, "which_log", which_log)
    monkeypatch.setattr(seeking, "spans_of", spans_of)
    monkeypatch.setattr(rows, "kept", nothing)
    monkeypatch.setattr(store, "positions", nothing)
    guard = LogGuard("toy", [PLACE[0]], cast(Any, SimpleNamespace(connect=connect)), Health("toy", ()))
    cursor = PartitionCursor(epoch=1).sought(9, 2, by_poller=True)
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(guarding, "time", SimpleNamespace(monotonic=lambda: clock.now))
    stopped, doubted = [], []
    for _ in range(6):
        stopped.append(PLACE in (await guard.look(cast(Any, None), {PLACE: cursor})).stops)
        doubted.append(bool(guard.doubt))
        clock.now += guarding.LOOK_SECONDS
    assert stopped == [False, False, False, False, False, True]
    assert doubted == [True, True, False, True, True, False]


def test_a_partition_that_is_to_be_sought_is_doubted_as_long_and_what_else_stands_is_believed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guard = LogGuard("toy", [PLACE[0]], cast(Any, None), Health("toy", ()))
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(guarding, "time", SimpleNamespace(monotonic=lambda: clock.now))
    other = ("neuroweaver.requests", 1)
    stops = {PLACE: PartitionStop("beyond the end", 9, None, "short"), other: PartitionStop("gone", 9, None, "gone")}
    assert guard.believed([PLACE, other], stops).keys() == {other}
    clock.now += guarding.LOOK_SECONDS
    assert guard.believed([PLACE], {}) == {}
    assert guard.believed([PLACE], stops | {}).keys() == {other}
    clock.now += 2 * guarding.LOOK_SECONDS
    assert guard.believed([PLACE], stops).keys() == {PLACE, other}
