"""The relay beside an outbox of which one read takes a part: what it sends, and what waits."""

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from schemas.bounds import RECORD_BYTES
from schemas.topics import JOBS
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel.relay import statements
from services.chassis.kernel.relay.relay import Relay
from services.chassis.kernel.tables import HEADER_COLUMNS
from services.chassis.kernel.transaction import handover
from services.chassis.process.health import Health
from tests.simulation.database import OutboxRow


class Outbox:
    """A session whose database holds nothing but an outbox, which nobody else writes to."""

    def __init__(self) -> None:
        self.rows: dict[int, OutboxRow] = {}
        self.reads = 0
        self._last = 0

    def put(self, key: str, payload: str) -> handover.OutboxRow:
        self._last += 1
        self.rows[self._last] = row = OutboxRow((self._last, JOBS.name, key, payload, *(None for _ in HEADER_COLUMNS)))
        return handover.OutboxRow.read(row)

    async def execute(self, statement: Any, values: Mapping[str, Any] | None = None) -> Any:
        if statement is statements.SNAPSHOT:
            return SimpleNamespace(one=lambda: SimpleNamespace(xmin=1, xmax=1))
        if statement is statements.WAITING:
            found = {"rows": len(self.rows), "first": None, "seconds": 0}
            return SimpleNamespace(mappings=lambda: SimpleNamespace(one=lambda: found))
        assert values is not None
        for position in values.get("positions", ()):
            self.rows.pop(position)
        if statement is statements.REMOVE:
            return None
        self.reads += 1
        left = [row for _, row in sorted(self.rows.items()) if row.position > values["after"]]
        found_rows = [row for row in left if row.aggregateid not in values["blocked"]][: statements.ROWS]
        return SimpleNamespace(all=lambda: found_rows)


class Sent:
    """A producer whose broker takes everything."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def partitions_for(self, topic: str) -> set[int]:
        return {0}

    def create_batch(self) -> Any:
        return SimpleNamespace(append=self._append, close=lambda: None)

    def _append(self, *, timestamp: None, key: bytes, value: bytes, headers: Sequence[object]) -> int:
        self.keys.append(key.decode())
        return 1

    async def send_batch(self, batch: object, topic: str, *, partition: int) -> Any:
        return asyncio.sleep(0)


async def test_an_event_that_cannot_be_sent_is_not_overtaken_where_more_such_wait_than_one_read_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statements, "ROWS", 3)
    outbox, sent = Outbox(), Sent()
    one = Relay(Cluster("nowhere"), "toy", cast(Any, None), cast(Any, None), Health("toy", ()))
    keys = [f"job-{number}" for number in range(4)]
    for key in keys:
        outbox.put(key, "x" * RECORD_BYTES)

    async def drain() -> None:
        """As a second later, when all keys are tried again."""
        one._cursor._whole_at = 0.0
        await one._drain(cast(Any, outbox), cast(Any, sent), asyncio.Event())

    for _ in range(3):  # the floor rises over what waits
        await drain()
    assert sorted(one.blocked) == keys
    outbox.put(keys[-1], "{}")
    await drain()
    assert sent.keys == []
    assert sorted(one.blocked) == keys
    assert one._cursor._floor >= len(keys), "else this test is about nothing"


async def test_what_this_process_has_committed_is_sent_without_reading_it_and_removed_a_moment_later() -> None:
    outbox, sent = Outbox(), Sent()
    one = Relay(Cluster("nowhere"), "toy", cast(Any, None), cast(Any, None), Health("toy", ()))
    with one.handover.taken_by(lambda: None):
        await one._drain(cast(Any, outbox), cast(Any, sent), asyncio.Event())
        one._told, reads = False, outbox.reads
        for group in (["a", "b"], ["a"]):
            one.handover.put([outbox.put(key, "{}") for key in group])
        await one._drain(cast(Any, outbox), cast(Any, sent), asyncio.Event())
        assert (sent.keys, outbox.reads, len(outbox.rows)) == (["a", "b", "a"], reads, 3)
        one._remove_after = 0.0
        await one._drain(cast(Any, outbox), cast(Any, sent), asyncio.Event())
    assert (sent.keys, outbox.reads, outbox.rows) == (["a", "b", "a"], reads, {})


async def test_the_outbox_is_read_where_another_process_may_have_committed_before_what_was_handed_over() -> None:
    outbox, sent = Outbox(), Sent()
    one = Relay(Cluster("nowhere"), "toy", cast(Any, None), cast(Any, None), Health("toy", ()))
    with one.handover.taken_by(lambda: None):
        await one._drain(cast(Any, outbox), cast(Any, sent), asyncio.Event())
        one._told = False
        outbox.put("of another", "{}")
        one.handover.put([outbox.put("ours", "{}")])
        await one._drain(cast(Any, outbox), cast(Any, sent), asyncio.Event())
    assert sent.keys == ["of another", "ours"]


def test_more_rows_than_a_relay_that_is_behind_may_hold_are_left_to_the_outbox() -> None:
    passing = handover.Handover()
    outbox = Outbox()
    with passing.taken_by(lambda: None):
        passing.put([outbox.put("a", "{}")] * handover.MOST_ROWS)
        passing.put([outbox.put("a", "{}")])
        assert passing.take() is None
        assert passing.take() == []
