"""Watches a consumer group for other deployments and foreign programs, which would silently take part of the records.

A member's client id names its service and its database. A process describes its group before it joins, after every
rebalance before it applies anything, and every few seconds. If it sees a member with another database, it does not consume,
decide or work, since two databases would decide for one log. A member of another program only reads this service's records:
it is reported, and the service is not ready.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import NoError, for_code
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.reasons import first_of
from services.chassis.kafka import metrics, statements
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.consumer_groups import members_of_consumer_group
from services.chassis.kafka.reach import start
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import OtherDeployment, described, is_transient, wait_or_stop

_log = get_logger(__name__)
_LOOK_SECONDS = 3.0
_RETURN_SECONDS = 1.0
_NEWCOMER_SECONDS = 5.0
"""A process that has not worked yet retries later than one that has, with jitter: of two that start together one
continues."""
_POLL_SECONDS = 0.25
_ANSWER_SECONDS = 10.0
_SHOWN = 5
_ABSENT = "Dead"
"""What a broker calls a group that does not exist, or that uses the newer rebalance protocol."""

Loop = Callable[[asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a consumer group."""

    client_id: str
    host: str
    partitions: tuple[tuple[str, int], ...] = ()
    """The partitions that it reads now, if the group reports them."""

    def __str__(self) -> str:
        return f"client {self.client_id!r} at {self.host}"


@dataclass(frozen=True, slots=True)
class GroupMembers:
    """The members of the group, as one process sees them."""

    group: str
    client_id: str
    """The client id of this process."""
    ours: tuple[Member, ...] = ()
    others: tuple[Member, ...] = ()
    """Members that work for another database of the same service."""
    strangers: tuple[Member, ...] = ()
    """Members that belong to other programs."""

    @property
    def fault(self) -> str:
        """What is wrong, and the remedy; empty if nothing is wrong."""
        if self.others:
            return (
                f"another deployment is in group {self.group}: {first_of(self.others, _SHOWN)}; this one is {self.client_id!r}, so "
                "two databases would decide about one log. Stop one of them, or give both the same database URL"
            )
        if self.strangers:
            count = sum(len(member.partitions) for member in self.strangers)
            return (
                f"another program is in group {self.group}, which belongs to this service: {first_of(self.strangers, _SHOWN)}; it "
                f"has {count} partitions, whose records this service does not get. Stop it, or give it another group id"
            )
        return ""


def group_of(service: str) -> str:
    """Return the consumer group of a service."""
    return f"neuroweaver-{service}"


def client_id_of(service: str, database: str) -> str:
    """Return the client id of a member of that group."""
    return f"{group_of(service)}.{database}"


def group_members(service: str, database: str, members: Iterable[Member]) -> GroupMembers:
    """Classify `members`, for a process that works for `database`."""
    own, prefix = client_id_of(service, database), f"{group_of(service)}."
    members = tuple(members)
    return GroupMembers(
        group=group_of(service),
        client_id=own,
        ours=tuple(member for member in members if member.client_id == own),
        others=tuple(member for member in members if member.client_id != own and member.client_id.startswith(prefix)),
        strangers=tuple(member for member in members if not member.client_id.startswith(prefix)),
    )


async def database_of(engine: AsyncEngine) -> str:
    """Return the identity of a database: its server's identity and its own number there.

    A copy of its rows is another database, a standby that took over is the same. Raises the database's errors.
    """
    async with engine.connect() as connection:
        found = (await connection.execute(statements.DATABASE_IDENTITY)).mappings().one()
    return hashlib.sha256(f"{found['server']}/{found['number']}".encode()).hexdigest()[:12]


async def members_of(cluster: Cluster, group: str) -> list[Member]:
    """Return the members of a group. Raises the broker's errors."""
    async with _admin(cluster) as admin:
        return await _members(admin, group)


State = Literal["unknown", "refused", "free", "alone"]
"""Not checked yet; another deployment is in the group; there is none; there is none, and this one is in the group."""


@dataclass
class GroupWatch:
    """Watches the group of one service for one of its processes."""

    cluster: Cluster
    service: str
    engine: AsyncEngine
    health: Health
    state: State = "unknown"
    reason: str = ""
    _database: str = ""
    _worked: bool = False
    """Whether this process was the only deployment before."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Allows one check at a time, so that the latest result counts."""

    async def run(self, stop: asyncio.Event) -> None:
        """Check every few seconds until `stop`, and report the result."""
        while not stop.is_set():
            try:
                async with _admin(self.cluster) as admin:
                    while not await wait_or_stop(stop, _LOOK_SECONDS):
                        await self._look(admin)
            except Exception as error:
                log = _log.warning if is_transient(error) else _log.exception
                log("the consumer group could not be described", service=self.service, error=described(error))
                if self.state == "unknown":
                    self.health.report(
                        "alone", False, f"group {group_of(self.service)} cannot be described: {described(error)}"
                    )
                await wait_or_stop(stop, _LOOK_SECONDS)

    async def admit(self) -> str:
        """Check now, before anything is applied; return the client id to join with.

        Raises OtherDeployment, and the errors of broker and database: an unknown state does not admit.
        """
        async with asyncio.timeout(_ANSWER_SECONDS), _admin(self.cluster) as admin:
            await self._look(admin)
        self.check()
        return client_id_of(self.service, self._database)

    def check(self) -> None:
        """Raise OtherDeployment if one was seen: then nothing may be decided here."""
        if self.state == "refused":
            raise OtherDeployment(self.reason)

    async def while_free(self, stop: asyncio.Event, loop: Loop, *, alone: bool = True) -> None:
        """Run `loop` while there is no other deployment: it is stopped when one appears, and restarted afterwards.

        With `alone` it also waits until this deployment is in the group, so that the other one must have seen it.
        """
        wanted = ("alone",) if alone else ("free", "alone")
        while not stop.is_set():
            while self.state not in wanted:
                if await wait_or_stop(stop, _POLL_SECONDS):
                    return
            ended = asyncio.Event()
            ending = asyncio.create_task(self._end(ended, stop))
            try:
                await loop(ended)
            finally:
                ending.cancel()
            if self.state != "refused":
                return
            pause = _RETURN_SECONDS if self._worked else _NEWCOMER_SECONDS
            await wait_or_stop(stop, pause * random.uniform(1.0, 2.0))  # noqa: S311 (jitter, no secret)

    async def _end(self, ended: asyncio.Event, stop: asyncio.Event) -> None:
        while self.state != "refused" and not await wait_or_stop(stop, _POLL_SECONDS):
            pass
        ended.set()

    async def _look(self, admin: AIOKafkaAdminClient) -> None:
        async with asyncio.timeout(_ANSWER_SECONDS), self._turn:
            database = await database_of(self.engine)
            members = await _members(admin, group_of(self.service))
            self._database = self._database or database
            if database == self._database:
                self._note(group_members(self.service, database, members))
            else:
                self._move(
                    "refused", "the database was replaced by another one while this process was running; start it again"
                )

    def _note(self, seen: GroupMembers) -> None:
        counts = {"this deployment": seen.ours, "another deployment": seen.others, "another program": seen.strangers}
        for whose, members in counts.items():
            metrics.GROUP_MEMBERS.labels(self.service, whose).set(len(members))
        if seen.others:
            self._move("refused", seen.fault)
        elif seen.ours or self.state == "alone":
            self._worked = True
            self._move("alone", seen.fault)
        else:
            self._move("free", seen.fault or "no process of this deployment is in the group yet")

    def _move(self, state: State, reason: str) -> None:
        if reason != self.reason:
            log = _log.error if reason and state != "free" else _log.info
            log("who is in the consumer group", service=self.service, state=state, reason=reason or "nobody else")
        self.state, self.reason = state, reason
        self.health.report("alone", state == "alone" and not reason, reason)


async def _members(admin: AIOKafkaAdminClient, group: str) -> list[Member]:
    (response,) = await admin.describe_consumer_groups([group])
    found = []
    for code, _group, state, _kind, _protocol, members, *_ in response.groups:
        if for_code(code) is not NoError:
            raise for_code(code)(f"group {group} cannot be described")
        if state == _ABSENT:
            members_now = await members_of_consumer_group(admin, group)
            found += [Member(client, host.lstrip("/"), held) for client, host, held in members_now]
        found += [Member(client, host.lstrip("/"), _partitions(held)) for _id, client, host, _metadata, held in members]
    return found


def _partitions(assignment: bytes) -> tuple[tuple[str, int], ...]:
    """Return a member's assigned partitions; none while the group rebalances, or if its program encodes them
    differently."""
    try:
        decoded = ConsumerProtocol.ASSIGNMENT.decode(assignment) if assignment else None
    except Exception:  # a foreign program may write anything there
        return ()
    return tuple(sorted((found.topic, found.partition) for found in decoded.partitions())) if decoded else ()


@asynccontextmanager
async def _admin(cluster: Cluster) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**cluster.connection(), client_id="neuroweaver-group", request_timeout_ms=10_000)
    try:
        await start(admin, cluster)
        yield admin
    finally:
        await admin.close()
