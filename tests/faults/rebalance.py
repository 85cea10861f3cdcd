"""How long a partition goes without an answer when members of a group die, freeze, come and go, and what the members say meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import murmur2

from schemas.envelope import encode
from schemas.topics import JOBS, REQUESTS
from services.chassis.kafka.publisher import make_producer, stop_quietly
from tests.faults.field import Field, Member
from tests.toy import until

_EVERY_SECONDS = 0.2
_PATIENCE_SECONDS = 120.0
_CALM_SECONDS = 2.0


@dataclass(frozen=True)
class Stall:
    """The cost of one change of the membership."""

    change: str
    seconds: float
    """The longest that any request, to any partition, waited for its answer."""
    unready: float
    """Total seconds for which the healthy members were not ready."""
    refusals: int
    """How often Kafka refused a request because of the member's generation."""


@dataclass
class Pulse:
    """Repeated requests to every partition, with the times of their answers."""

    on: Field
    asked: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Partition and time of each request, by key."""
    answered: dict[str, float] = field(default_factory=dict)
    _number: int = 0

    async def ask(self, producer: AIOKafkaProducer) -> None:
        """Send one request to each partition."""
        for partition in range(REQUESTS.partitions):
            name = self._name(partition)
            event = self.on.toy.requested(name)
            value, headers = encode(event)
            key = self.on.toy.prefix + name
            self.asked[key] = (partition, asyncio.get_running_loop().time())
            await producer.send(REQUESTS.name, value, key.encode(), headers=headers)

    def _name(self, partition: int) -> str:
        while True:
            self._number += 1
            name = f"pulse-{self._number}"
            if (murmur2((self.on.toy.prefix + name).encode()) & 0x7FFFFFFF) % REQUESTS.partitions == partition:
                return name

    async def hear(self, consumer: AIOKafkaConsumer) -> None:
        """Record answers for ever."""
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    self.answered.setdefault((record.key or b"").decode(), asyncio.get_running_loop().time())

    async def longest(self, begun: float, ended: float) -> float:
        """Return the seconds of the slowest answer to a request sent in this time.

        Raises AssertionError if one is not answered.
        """
        sent = {key: at for key, (_, at) in self.asked.items() if begun <= at < ended}
        await until(lambda: sent.keys() <= self.answered.keys(), _PATIENCE_SECONDS, what=lambda: self._silent(sent))
        return max(self.answered[key] - at for key, at in sent.items())

    def _silent(self, sent: Iterable[str]) -> str:
        return f"partitions {sorted({self.asked[key][0] for key in sent if key not in self.answered})} do not answer"


@asynccontextmanager
async def beating(field: Field) -> AsyncIterator[Pulse]:
    """Send requests during the block."""
    pulse = Pulse(field)
    producer = make_producer(field.toy.settings.cluster, "pulse")
    consumer = AIOKafkaConsumer(bootstrap_servers=field.stack.kafka_bootstrap, group_id=None)
    await producer.start()
    await consumer.start()
    consumer.assign([TopicPartition(JOBS.name, number) for number in range(JOBS.partitions)])
    await consumer.seek_to_end()

    async def beat() -> None:
        while True:
            await pulse.ask(producer)
            await asyncio.sleep(_EVERY_SECONDS)

    tasks = [asyncio.ensure_future(beat()), asyncio.ensure_future(pulse.hear(consumer))]
    try:
        yield pulse
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await consumer.stop()
        await stop_quietly(producer)


async def stalls(field: Field, changes: Sequence[str], rounds: int) -> list[Stall]:
    """Return the costs of these changes, repeated one after the other."""
    members = [await field.join(), await field.join()]
    async with beating(field) as pulse:
        return [await _measure(pulse, name, members, CHANGES[name]) for name in (*changes,) * rounds]


Change = Callable[[Field, list[Member]], Awaitable[None]]


async def _measure(pulse: Pulse, name: str, members: list[Member], change: Change) -> Stall:
    await asyncio.sleep(_CALM_SECONDS)
    begun = asyncio.get_running_loop().time()
    before = sum(_refusals(member) for member in members)
    await change(pulse.on, members)
    await until(
        lambda: all(member.ready for member in members), _PATIENCE_SECONDS, what=lambda: [m.said[-1:] for m in members]
    )
    await asyncio.sleep(_CALM_SECONDS)
    seconds = await pulse.longest(begun, asyncio.get_running_loop().time())
    after = sum(_refusals(member) for member in members)
    well = [member for member in members if member.said[0][0] < begun]
    return Stall(name, round(seconds, 1), round(sum(_unready(member, begun) for member in well), 1), max(0, after - before))


def _refusals(member: Member) -> int:
    return member.said[-1][1].refusals if member.said else 0


def _unready(member: Member, since: float) -> float:
    """Return the seconds since a time in which a member reported that it was not ready."""
    seconds, last, ready = 0.0, since, True
    for at, standing in member.said:
        if at > since and not ready:
            seconds += at - last
        last, ready = max(at, since), standing.ready
    return seconds


async def _kill_and_restart(field: Field, members: list[Member]) -> None:
    await field.leave(members.pop(0), signal.SIGKILL)
    members.append(await field.join(ready=False))


async def _kill(field: Field, members: list[Member]) -> None:
    """Kill the member without a replacement."""
    await field.leave(members.pop(0), signal.SIGKILL)
    await asyncio.sleep(field.toy.settings.session_timeout_ms / 1000)


async def _join(field: Field, members: list[Member]) -> None:
    members.append(await field.join(ready=False))


async def _leave(field: Field, members: list[Member]) -> None:
    await field.leave(members.pop(0), signal.SIGTERM)
    members.append(await field.join(ready=False))


async def _freeze(field: Field, members: list[Member]) -> None:
    """Freeze the member for longer than its session, then continue it."""
    member = members[0]
    member.send(signal.SIGSTOP)
    await asyncio.sleep(field.toy.settings.session_timeout_ms / 1000 + 3)
    member.send(signal.SIGCONT)
    await asyncio.sleep(_CALM_SECONDS)


CHANGES: dict[str, Change] = {
    "is killed": _kill,
    "joins": _join,
    "is killed and restarted at once": _kill_and_restart,
    "leaves and is replaced": _leave,
    "freezes and wakes up": _freeze,
}
"""The changes; in this order two members become one, and two again."""
