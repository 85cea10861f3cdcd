"""Polls that fail before anything of them is applied, with a database and a broker that are played."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaTimeoutError

from schemas.topics import JOBS
from services.chassis.kernel.consuming import polls, positioning
from services.chassis.kernel.consuming.client import Client
from services.chassis.kernel.consuming.consumer import Consumer, _Subscription
from services.chassis.kernel.consuming.seeking import StartingPoint
from services.chassis.kernel.consuming.subscription import subscribe
from services.chassis.kernel.records import Partition
from services.chassis.kernel.transaction.batch import Applied, Poll
from services.chassis.process.health import Health
from services.chassis.settings import ServiceSettings
from tests.log import HeldRecord

ONE, OTHER = ("neuroweaver.requests", 0), ("neuroweaver.requests", 1)


class Played:
    """A consumer whose log has a marker at offset 10 of partition 0, and a client and a database that fail when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.positions = {ONE: 10, OTHER: 0}
        self.applied: list[tuple[Partition, int]] = []
        self.broker_away = self.database_away = False
        monkeypatch.setattr(polls, "apply_batch", self.apply_batch)
        monkeypatch.setattr(positioning, "starting_points", self.starting_points)
        settings = SimpleNamespace(dead_letter_run=10, dead_letter_share=0.2, session_timeout_ms=10_000, drain_seconds=1)
        self.consumer = Consumer(
            cast(Any, settings),
            "toy",
            cast(Any, None),
            None,
            (),
            cast(Any, None),
            cast(Any, None),
            Health("toy", ()),
            self.admit,
        )
        self.consumer._subscriber = cast(Any, SimpleNamespace(consumer=self))
        self.consumer.polls.backoff = cast(Any, SimpleNamespace(next=lambda: 0.0, reset=lambda: None))
        self.consumer.assigned(self.positions)

    async def admit(self) -> str:
        return "toy"

    async def apply_batch(self, _decider: Any, poll: Poll) -> Applied:
        behind: dict[Partition, int] = {}
        for partition, group in poll.records.items():
            if self.positions[partition] < poll.starts[partition]:
                behind[partition] = self.positions[partition]
                continue
            fresh = [record.offset for record in group if record.offset >= self.positions[partition]]
            self.applied += [(partition, offset) for offset in fresh]
            self.positions[partition] = max([self.positions[partition], *(offset + 1 for offset in fresh)])
        return Applied(behind=behind)

    async def starting_points(self, *how: Any) -> dict[Partition, StartingPoint]:
        if self.database_away:
            raise TimeoutError
        return {partition: StartingPoint(self.positions[partition], None) for partition in how[3]}

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if self.broker_away:
            raise KafkaTimeoutError("no answer")
        return dict.fromkeys(partitions, 0)

    def seek(self, *_: object) -> None:
        pass

    resume = pause = seek

    async def sought(self, *, by_poller: bool) -> None:
        await self.consumer.seek(cast(Any, self), self.positions, by_poller=by_poller)

    async def poll(self, *spans: tuple[Partition, int, int]) -> None:
        await self.consumer.handle(
            tuple(
                HeldRecord(*place, offset, 0, b"k", b"v", ()) for place, first, end in spans for offset in range(first, end)
            )
        )


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


async def test_what_a_poll_held_whose_judgement_fails_is_sought_anew_and_not_jumped_over(played: Played) -> None:
    await played.sought(by_poller=True)
    played.broker_away = True
    await played.poll((ONE, 11, 20), (OTHER, 0, 5))
    assert played.consumer.unsought() == [ONE, OTHER]
    played.broker_away = False
    await played.poll((ONE, 20, 30), (OTHER, 5, 8))
    assert played.applied == []
    await played.poll((ONE, 11, 30), (OTHER, 0, 8))
    assert [offset for place, offset in played.applied if place == ONE] == list(range(11, 30))
    assert [offset for place, offset in played.applied if place == OTHER] == list(range(8))


async def test_a_doubted_partition_whose_seek_fails_is_sought_by_upkeep(played: Played) -> None:
    await played.sought(by_poller=False)
    played.database_away = True
    await played.poll((ONE, 11, 20))
    assert played.consumer.unsought() == [ONE]


async def test_what_the_client_took_and_lost_is_sought_anew(played: Played) -> None:
    await played.sought(by_poller=True)
    played.consumer.lost()
    await played.poll((OTHER, 5, 8))
    assert played.applied == []


async def test_a_poll_of_the_client_that_fails_is_said_and_does_not_keep_it_from_leaving_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    client = Client("toy", lambda: said.append("lost"), bootstrap_servers="127.0.0.1:1", group_id="g")

    async def fetched_records(*_: object, **__: object) -> None:
        raise CorruptRecordException

    client._fetcher = SimpleNamespace(fetched_records=fetched_records)
    client._coordinator = SimpleNamespace(check_errors=lambda: None)
    assert isinstance(client, AIOKafkaConsumer)
    with pytest.raises(CorruptRecordException):
        await client.getmany()
    assert said == ["lost"]
    assert client._subscription.fetcher_idle_time > 0
    client._closed = True


async def test_to_the_client_what_waits_is_not_read_yet_until_the_partition_is_read_anew() -> None:
    client = Client("toy", lambda: None, bootstrap_servers="127.0.0.1:1", group_id="g")
    client._closed = True
    place = TopicPartition(*ONE)
    own: Any = HeldRecord(*ONE, 7, 0, b"k", b"v", (("ce_source", b"toy"), ("ce_sequence", b"1")))
    assert client._holding.hand_over({place: [own]}, lambda _: 8, 0.0, 500) == {}
    assert await client.position(place) == 7
    client._fetcher = SimpleNamespace(seek_to=lambda *_: None)
    client.seek(place, 3)
    assert client._holding.count == 0


async def test_the_client_that_says_so_is_the_one_that_consumes_after_faststream_has_connected(tmp_path: Path) -> None:
    settings = ServiceSettings(kafka_bootstrap="127.0.0.1:1", home=tmp_path)
    lost: list[str] = []
    subscribed = cast(Any, SimpleNamespace(lost=lambda: lost.append("lost")))
    broker, subscriber = subscribe(settings, "toy", "toy", (JOBS,), "neuroweaver/toy", subscribed)
    await broker.connect()
    client = subscriber.builder(group_id="g")
    client._lost()
    assert (type(client), lost) == (Client, ["lost"])
    client._closed = True
    await broker.stop()


async def test_a_subscription_that_ended_late_has_no_say(played: Played) -> None:
    old = _Subscription(played.consumer, 0)
    played.consumer._subscription += 1
    await played.sought(by_poller=True)
    await old.on_partitions_revoked(())
    await old.on_partitions_assigned([TopicPartition(*ONE)])
    old.lost()
    await old.handle((HeldRecord(*OTHER, 0, 0, b"k", b"v", ()),))
    assert (played.consumer.unsought(), len(played.consumer.assignment.cursors), played.applied) == ([], 2, [])
