"""Serves targets by InferenceServices: one for each version, however many slots want it."""

import asyncio
from collections.abc import Collection

from services.registry.deploying.driver import READY, Target
from services.registry.deploying.faults import Away, Refused
from services.registry.deploying.files import Sources, sources_of, version_files
from services.registry.deploying.kserve.api import KubernetesApi
from services.registry.deploying.kserve.manifest import manifest, name_of
from services.registry.deploying.kserve.status import judged
from services.registry.deploying.probing import probe
from services.registry.deploying.remote.backend import RemoteSlot
from services.registry.deploying.remote.chatting import ChatServer
from services.registry.deploying.remote.driver import Pace, RemoteDriver
from services.registry.deploying.remote.patience import Patience
from services.registry.deploying.settings import KserveSettings
from services.registry.settings import RegistrySettings


class KserveBackend:
    """A namespace of a cluster, see `services.registry.deploying.remote.backend.Backend`."""

    def __init__(self, settings: KserveSettings, owner: str, sources: Sources, patience: Patience) -> None:
        self._settings, self._owner, self._sources, self._patience = settings, owner, sources, patience
        self._api = KubernetesApi(settings, owner, patience.look)

    def name(self, target: Target) -> str:
        """Return the name of the object that serves a target."""
        return name_of(target, self._owner)

    async def serve(self, slot: RemoteSlot) -> None:
        """Apply the object of a target, wait until it is ready, ask it, and watch it. Raises Refused or Away."""
        slot.starts("Verifying")
        files = await asyncio.to_thread(version_files, slot.target, self._sources)
        await self._api.apply(manifest(slot.target, self._settings, self._owner))
        name = self.name(slot.target)
        if (address := await self._ready(slot, name)) is None:
            return
        slot.starts("Probing")
        server = ChatServer(f"InferenceService {name}", address, None, self._patience)
        try:
            await probe(server, name, files.probes if self._settings.compare_answers else ())
            slot.see("ready", READY, "", address, name)
            message = await self._watch(name, server)
        finally:
            await server.close()
        slot.see("starting", "Restarting", message)

    async def release(self, target: Target) -> None:
        """Delete the object of a target."""
        await self._api.delete(self.name(target))

    async def sweep(self, wanted: Collection[Target]) -> None:
        """Delete the objects with this registry's mark that nobody wants."""
        names = {self.name(target) for target in wanted}
        for service in await self._api.list():
            if service.metadata.name not in names and service.metadata.deletionTimestamp is None:
                await self._api.delete(service.metadata.name)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _ready(self, slot: RemoteSlot, name: str) -> str | None:
        """Return the address of an object when it is ready, and say meanwhile why it is not; None if somebody deleted it."""
        while (service := await self._api.get(name)) is not None:
            seen = judged(service)
            if seen.address is not None:
                return seen.address
            slot.see("failed" if seen.reason else "starting", seen.reason or "Loading", seen.message)
            await asyncio.sleep(self._patience.between)
        return None

    async def _watch(self, name: str, server: ChatServer) -> str:
        """Return why an object serves no more. While the API is away it serves as long as it answers. Raises Away when it does not."""
        misses = 0
        while True:
            await asyncio.sleep(self._patience.between)
            try:
                service = await self._api.get(name)
            except (Refused, Away):
                misses = 0 if await server.lists() else misses + 1
                if misses >= self._patience.misses:
                    raise
                continue
            misses = 0
            if service is None:
                return f"InferenceService {name} was deleted; it is made again"
            if (seen := judged(service)).address is None:
                return seen.message


def kserve_driver(settings: RegistrySettings, patience: Patience | None = None, pace: Pace | None = None) -> RemoteDriver:
    """Return the driver of a registry."""
    serving = settings.serving
    cluster = serving.kserve or KserveSettings()
    return RemoteDriver(KserveBackend(cluster, serving.owner, sources_of(settings), patience or Patience()), pace)
