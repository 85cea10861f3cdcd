"""`neuroweaver retention`: what the policy no longer keeps, of every service and of this machine; removed, or only
counted."""

import asyncio
from collections.abc import Sequence

from schemas.base import Frozen
from schemas.steps import SERVICES
from services.chassis.process.logging import configure
from services.chassis.replay.artifacts import UnreferencedArtifacts
from services.chassis.serving.service import Service
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.retention.run import Removal, retain
from services.cli.output import out, print_json, print_table
from services.cli.serve import composed
from services.cli.settings import CliSettings
from services.devstack import retention as stack_retention

STACK = "stack"
"""Used instead of a service's name for files of the commands and the development stack."""


ALL = "all"
"""Used instead of a service's name for what is removed only when every service was asked."""


class RemovedKind(Frozen):
    """What the policy removes of one kind."""

    service: str
    removal: Removal


def run(settings: CliSettings, services: Sequence[str], *, dry: bool) -> list[RemovedKind]:
    """Apply the policy now. The services also apply it every `NEUROWEAVER_RETENTION_EVERY_SECONDS`."""
    configure("ERROR")  # the result already says what the log would
    with composed(services) as built:
        return asyncio.run(_apply(settings, built, dry=dry))


async def _apply(settings: CliSettings, services: Sequence[Service], *, dry: bool) -> list[RemovedKind]:
    found = []
    for service in services:
        try:
            removals = await retain(service.name, service.retention.removers, dry=dry)
        finally:
            if service.retention.engine is not None:
                await service.retention.engine.dispose()
        found += [RemovedKind(service=service.name, removal=removal) for removal in removals]
    removers = stack_retention.removers(settings.home, settings.cache, RetentionSettings())
    found += [RemovedKind(service=STACK, removal=removal) for removal in await retain(STACK, removers, dry=dry)]
    if unreferenced := unreferenced_artifacts(services):
        try:
            found += [RemovedKind(service=ALL, removal=removal) for removal in await retain(ALL, [unreferenced], dry=dry)]
        finally:
            await unreferenced.owner.engine.dispose()
    return found


def unreferenced_artifacts(services: Sequence[Service]) -> UnreferencedArtifacts | None:
    """Return the remover of artifacts that no service references; None unless every service is there to be asked."""
    owner = next((service.owner for service in services if service.owner), None)
    if owner is None or {service.name for service in services} != set(SERVICES):
        return None
    return UnreferencedArtifacts([service.referenced for service in services], owner)


def show(found: Sequence[RemovedKind], *, dry: bool, json: bool) -> bool:
    """Print the result and return whether every kind could be checked."""
    if json:
        print_json([{"service": one.service, **one.removal.model_dump()} for one in found])
    else:
        rows = [
            (one.service, one.removal.kind, one.removal.count, f"{one.removal.size:,}", one.removal.error or "")
            for one in found
            if one.removal.count or one.removal.error
        ]
        if rows:
            print_table(("service", "kind", "would go" if dry else "removed", "bytes", "error"), rows, least=("bytes",))
        else:
            out.print("Nothing to remove: everything is within the policy.")
    return not any(one.removal.error for one in found)
