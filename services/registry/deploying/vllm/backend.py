"""Serves targets on vLLM servers: an adapter is loaded into a server of its base model; a whole model has to be what a server serves.

The name of an adapter on a server has the digest of its files, so that an adapter of that name is this one, whoever loaded it and
whenever; it is never replaced under its name.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from services.registry.deploying.driver import READY, Target
from services.registry.deploying.faults import Away, Refused
from services.registry.deploying.files import Sources, VersionFiles, sources_of, version_files
from services.registry.deploying.probing import probe
from services.registry.deploying.remote.backend import RemoteSlot
from services.registry.deploying.remote.driver import Pace, RemoteDriver
from services.registry.deploying.remote.http import AWAY
from services.registry.deploying.remote.patience import Patience
from services.registry.deploying.settings import VllmServer
from services.registry.deploying.vllm.client import Card, VllmClient
from services.registry.settings import RegistrySettings

_DIGITS = 16
"""Digits of the digest in a name."""


class _Place(NamedTuple):
    """Where a target is served: a server, its name there, and where the server reads it from."""

    client: VllmClient
    cards: Mapping[str, Card]
    name: str
    path: str


class VllmBackend:
    """The configured servers, see `services.registry.deploying.remote.backend.Backend`."""

    def __init__(self, servers: Sequence[VllmServer], owner: str, sources: Sources, patience: Patience) -> None:
        self._clients = [VllmClient(server, patience) for server in servers]
        self._owner, self._sources, self._patience = owner, sources, patience

    async def serve(self, slot: RemoteSlot) -> None:
        """Bring a target to a server and watch it there. Raises Refused or Away."""
        slot.starts("Verifying")
        files = await asyncio.to_thread(version_files, slot.target, self._sources)
        place = await self._found(slot.target, files)
        slot.starts("Loading")
        if slot.target.kind == "adapter":
            await _load(place)
        slot.starts("Probing")
        await probe(place.client, place.name, files.probes if place.client.server.compare_answers else ())
        slot.see("ready", READY, "", place.client.server.url, place.name)
        await self._watch(place)
        what = f"the vLLM server {place.client.server.url} has not got {place.name} any more; it is loaded again"
        slot.see("starting", "Restarting", what)

    async def release(self, target: Target) -> None:
        """Unload a target wherever it is loaded; a whole model stays where the operator serves it."""
        if target.kind == "adapter":
            await self._each(lambda name, _: name == self.name(target))

    async def sweep(self, wanted: Collection[Target]) -> None:
        """Unload the adapters with this registry's mark that nobody wants."""
        names = {self.name(target) for target in wanted}
        await self._each(
            lambda name, card: name.startswith(f"{self._owner}/") and card.parent is not None and name not in names
        )

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.close() for client in self._clients))

    def name(self, target: Target) -> str:
        """Return what a server calls an adapter."""
        return f"{self._owner}/{target.served}:{target.artifact.sha256[:_DIGITS]}"

    async def _each(self, unwanted: Callable[[str, Card], bool]) -> None:
        """Unload adapters of all servers that are unwanted. Raises what went wrong when all were asked."""
        faults: list[Refused | Away] = []
        for client in self._clients:
            try:
                for name, card in (await client.cards()).items():
                    if unwanted(name, card):
                        await client.unload(name)
            except (Refused, Away) as fault:
                faults.append(fault)
        if faults:
            raise faults[0]

    async def _found(self, target: Target, files: VersionFiles) -> _Place:
        """Return the best place for a target: where it is already, else where the fewest adapters are. Raises Refused or Away."""
        suitable = [client for client in self._clients if target.kind == "model" or _has_base(client.server, target, files)]
        if not suitable:
            raise _no_server(target, [client.server for client in self._clients])
        found = await asyncio.gather(*(self._place(client, target, files) for client in suitable))
        places = sorted((one for one in found if isinstance(one, _Place)), key=_rank)
        if places:
            return places[0]
        faults = [one for one in found if not isinstance(one, _Place)]
        raise next((one for one in faults if isinstance(one, Away)), faults[0])

    async def _place(self, client: VllmClient, target: Target, files: VersionFiles) -> "_Place | Refused | Away":
        try:
            cards = await client.cards()
        except (Refused, Away) as fault:
            return fault
        path = seen_at(str(files.folder), client.server.paths)
        if target.kind == "model":
            return _whole(client, cards, target, path)
        if (refused := _unsuited(client.server, cards, self.name(target))) is not None:
            return refused
        return _Place(client, cards, self.name(target), path)

    async def _watch(self, place: _Place) -> None:
        """Return when the server has not got the name any more. Raises Refused or Away after several looks that failed."""
        misses = 0
        while True:
            await asyncio.sleep(self._patience.between)
            try:
                card = (await place.client.cards()).get(place.name)
            except (Refused, Away):
                misses += 1
                if misses >= self._patience.misses:
                    raise
                continue
            misses = 0
            if card is None or not card.reads(place.path):
                return


async def _load(place: _Place) -> None:
    """Load an adapter unless the server has it. One of its name from elsewhere is unloaded first."""
    known = place.cards.get(place.name)
    if known is not None and known.reads(place.path):
        return
    if known is not None:
        await place.client.unload(place.name)
    try:
        await place.client.load(place.name, place.path)
    except Refused:
        await place.client.cards()  # an engine that has just died says so here, and is no fault of the adapter
        raise
    loaded = (await place.client.cards()).get(place.name)
    if loaded is None or not loaded.reads(place.path):
        what = f"the vLLM server {place.client.server.url} says that it loaded {place.name}, but does not list it"
        raise Away(AWAY, f"{what}; look into its log")


def seen_at(folder: str, paths: Mapping[str, str]) -> str:
    """Return where a server sees a folder of this machine: by the longest folder that `paths` has."""
    real = PurePosixPath(folder)
    for ours in sorted(paths, key=lambda path: len(PurePosixPath(path).parts), reverse=True):
        if real.is_relative_to(ours):
            return str(PurePosixPath(paths[ours]) / real.relative_to(ours))
    return folder


def _has_base(server: VllmServer, target: Target, files: VersionFiles) -> bool:
    """Whether a server's base model is the one on which an adapter was trained: by digest where both are known, else by reference."""
    digests = {digest for digest in (target.base_model_sha256, files.trained_on) if digest is not None}
    if server.base_model_sha256 is not None and digests:
        return digests == {server.base_model_sha256}
    return server.base_model == target.base_model


def _no_server(target: Target, servers: Sequence[VllmServer]) -> Refused:
    named = [server for server in servers if server.base_model == target.base_model]
    what = f"{target.served} was trained on {target.base_model}"
    if named:
        digest = target.base_model_sha256
        message = (
            f"{what} with digest {digest}, but {named[0].url} is said to serve it with digest {named[0].base_model_sha256}"
        )
        return Refused("WrongBase", f"{message}; let the server serve those files, or correct base_model_sha256")
    known = ", ".join(sorted({server.base_model for server in servers}))
    return Refused("NoServer", f"{what}, and the configured vLLM servers serve {known}; start one that serves it")


def _unsuited(server: VllmServer, cards: Mapping[str, Card], name: str) -> Refused | None:
    base = cards.get(server.base_name)
    if base is None or base.parent is not None:
        served = ", ".join(sorted(card.id for card in cards.values() if card.parent is None)) or "nothing"
        what = f"the vLLM server {server.url} serves {served}, and not {server.base_name}"
        return Refused(
            "NoServer", f"{what}; start it with that base model, or correct base_model and serves in the settings"
        )
    loaded = [card for card in cards.values() if card.parent is not None]
    if name not in cards and server.adapters is not None and len(loaded) >= server.adapters:
        what = f"the vLLM server {server.url} has {len(loaded)} adapters, and may have {server.adapters}"
        return Refused("ServerFull", f"{what}; retire a deployment, or raise `adapters` and its --max-loras")
    return None


def _whole(client: VllmClient, cards: Mapping[str, Card], target: Target, path: str) -> _Place | Refused:
    """Return the name under which a server serves a whole model: it has to read exactly the version's folder."""
    for card in cards.values():
        if card.parent is None and card.reads(path):
            return _Place(client, cards, card.id, path)
    served = ", ".join(sorted(card.root or card.id for card in cards.values() if card.parent is None)) or "nothing"
    what = f"{target.served} is a whole model, and the vLLM server {client.server.url} serves {served}"
    return Refused("NotServed", f"{what}; start one with `vllm serve {path}`, or deploy an adapter")


def _rank(place: _Place) -> tuple[bool, int]:
    return place.name not in place.cards, sum(card.parent is not None for card in place.cards.values())


def vllm_driver(settings: RegistrySettings, patience: Patience | None = None, pace: Pace | None = None) -> RemoteDriver:
    """Return the driver of a registry."""
    serving = settings.serving
    return RemoteDriver(VllmBackend(serving.vllm, serving.owner, sources_of(settings), patience or Patience()), pace)
