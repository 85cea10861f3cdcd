"""Removes the artifacts that no row of any service references: one process at a time, which asks every service. Doubt removes nothing.

Who asks: a program that composes all services, since none of them may ask another. In which order, so that a digest that travels from one
service to the next is seen: the rows of all services, then whether each has applied the whole log, then the rows again. What was written
before the first look has then been applied before the second, and what is written later names only what was put just now, was referenced at
the first look, or is restored under the locks of `release`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.postgres.exclusive import Exclusive, exclusive
from services.chassis.postgres.locks import ARTIFACTS_LOCK
from services.chassis.postgres.statements import READS_ONLY
from services.chassis.replay.referenced import ReferencedArtifacts, Unsure
from services.chassis.settings import ServiceSettings
from services.chassis.storage.artifacts.erased import Erasures
from services.chassis.storage.artifacts.removal import Removals, StoredArtifact
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.retention.run import RemovedAmount

_IDLE_SECONDS = 60.0
_TAKEN_SECONDS = 5.0
_TOLD_SECONDS = 20.0
_LOOK_SECONDS = 0.2


class Owner(Protocol):
    """The service that tells what becomes of an artifact before it is removed."""

    @property
    def service(self) -> str:
        """Its name."""

    @property
    def settings(self) -> ServiceSettings:
        """Its settings, with the store and the policy."""

    @property
    def engine(self) -> AsyncEngine:
        """The engine of its database."""

    async def release(self, digests: Sequence[str], seconds: float) -> Mapping[str, bool]:
        """Record that artifacts are removed, and return by digest whether they may be: whether nothing names them any more, or only what
        was deleted more than `seconds` ago."""


@dataclass(frozen=True)
class UnreferencedArtifacts:
    """Removes artifacts of the owner's store that none of the services references."""

    services: Sequence[ReferencedArtifacts]
    """Of every service that has rows about artifacts, the owner included."""
    owner: Owner
    kind: str = "artifacts"

    @property
    def removals(self) -> Removals:
        """What is removed from the store."""
        return ArtifactStore(self.owner.settings.artifacts_uri).removals

    @property
    def age(self) -> timedelta:
        """How long an artifact is kept that nobody needs."""
        return self.owner.settings.retention.artifacts.age

    async def apply(self, *, dry: bool) -> RemovedAmount:
        """Remove what nobody references and was put long ago. Raises Unsure where that is not known of every service."""
        async with exclusive(self.owner.engine, _IDLE_SECONDS) as session:
            await _take(session)
            if not dry:
                await asyncio.to_thread(self.removals.finish)
            found = await self._unreferenced()
            if not dry:
                found = [one for one in await self._released(found) if await self._removed(session, one)]
        return RemovedAmount(len(found), sum(one.size for one in found))

    async def _unreferenced(self) -> list[StoredArtifact]:
        digests = await asyncio.to_thread(self.removals.digests)
        if not digests:
            return []
        referenced = await self._referenced()
        if not sum([await service.require_read() for service in self.services]):
            raise Unsure("the log is empty, so the artifacts belong to another one, or it is lost")
        referenced |= await self._referenced()
        referenced |= await asyncio.to_thread(Erasures(self.owner.settings.artifacts_uri).remains)
        return await asyncio.to_thread(self._examined, [digest for digest in digests if digest not in referenced])

    async def _referenced(self) -> set[str]:
        seconds = self.age.total_seconds()
        return set[str]().union(*[await service.digests(seconds) for service in self.services])

    def _examined(self, digests: Sequence[str]) -> list[StoredArtifact]:
        now = datetime.now(UTC)
        known = (self.removals.examine(digest) for digest in digests)
        return sorted((one for one in known if one and now - one.at > self.age), key=lambda one: (one.at, one.sha256))

    async def _released(self, found: Sequence[StoredArtifact]) -> list[StoredArtifact]:
        """Return what the owner releases, once what it tells about it is in the log: until then its outbox references the digest."""
        seconds = self.age.total_seconds()
        may = await self.owner.release([one.sha256 for one in found], seconds)
        left = [one for one in found if may.get(one.sha256)]
        owner = next(service for service in self.services if service.service == self.owner.service)
        loop = asyncio.get_running_loop()
        until = loop.time() + _TOLD_SECONDS
        while left:
            referenced = await owner.digests(seconds)
            if not any(one.sha256 in referenced for one in left) or loop.time() > until:
                return [one for one in left if one.sha256 not in referenced]
            await asyncio.sleep(_LOOK_SECONDS)
        return []

    async def _removed(self, session: Exclusive, one: StoredArtifact) -> bool:
        await session.execute(READS_ONLY)  # it fails if the lock is lost
        return await asyncio.to_thread(self.removals.remove, one)


async def _take(session: Exclusive) -> None:
    """Take the lock, which the server frees a moment after its last holder has ended. Raises Unsure."""
    until = asyncio.get_running_loop().time() + _TAKEN_SECONDS
    while not await session.take(ARTIFACTS_LOCK):
        if asyncio.get_running_loop().time() > until:
            raise Unsure("another process removes artifacts right now; wait for it")
        await asyncio.sleep(_LOOK_SECONDS)
