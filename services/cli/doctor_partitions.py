"""Doctor's look at the partitions: what stands, whether services run or not, read beside them from database and broker."""

import asyncio
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from schemas.steps import SERVICES
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.settings import overrides
from services.chassis.kernel.operations.partitions.listing import PartitionView, listed
from services.chassis.kernel.operations.partitions.reading import ConsumedTopics, engine_of
from services.chassis.process.transient import described
from services.cli.finding import Finding
from services.cli.serve import build, settings_of

_ANSWER_SECONDS = 20.0
_NOT_THERE_YET = ("3D000", "42P01")
"""SQLSTATE of a database, or a table, that does not exist."""


def partitions(cluster: Cluster | None, database_url: str | None, home: Path) -> Finding:
    """Check whether a service has stopped at a partition, or would if it were running."""
    if cluster is None or database_url is None:
        return Finding(check="partitions", verdict="good", detail="not known: no servers are running")
    stands, unknown = _standing(cluster, database_url, home)
    if stands:
        remedy = "see `neuroweaver partitions list`"
        return Finding(check="partitions", verdict="mend", detail="; ".join(stands), remedy=remedy)
    if unknown:
        detail = f"not known: {'; '.join(unknown)}"
        return Finding(check="partitions", verdict="note", detail=detail, remedy="repair the servers first")
    return Finding(check="partitions", verdict="good", detail="none has stopped")


def _standing(cluster: Cluster, database_url: str, home: Path) -> tuple[list[str], list[str]]:
    """Return the reasons of stopped partitions by service, and the services of which this is unknown, with the reason."""
    stands, unknown = [], []
    shared = {**overrides(cluster), "database_url": database_url, "home": home}
    for service in SERVICES:
        try:
            views = asyncio.run(_look(build(service, settings_of(service, **shared)).reading))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _NOT_THERE_YET:
                unknown.append(f"{service}: {described(error)}")
        except Exception as error:
            unknown.append(f"{service}: {described(error)}")
        else:
            reasons = dict.fromkeys(view.reason for view in views if view.state == "stands")
            stands += [f"{service}: {reason}" for reason in reasons]
    return stands, unknown


async def _look(reading: ConsumedTopics) -> list[PartitionView]:
    engine = engine_of(reading)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await listed(engine, reading)
    finally:
        await engine.dispose()
