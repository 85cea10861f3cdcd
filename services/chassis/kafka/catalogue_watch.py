"""Reports differences between a cluster's topics and the catalogue while a service runs, since operators may change topics.

A difference makes the service not ready only if records that must be kept for ever are lost: a topic is gone, or deletes
records.
"""

import asyncio

from services.chassis.kafka import metrics, topics
from services.chassis.kafka.catalogue import TopicChange
from services.chassis.kafka.cluster import Cluster, Security
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described, wait_or_stop

LOOK_SECONDS = 60.0
_PATIENCE_SECONDS = 30.0
_log = get_logger(__name__)


class CatalogueWatch:
    """Checks the topics of one cluster for one service."""

    def __init__(self, cluster: Cluster, health: Health) -> None:
        self._cluster, self._health = cluster, health
        self._known: list[TopicChange] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Check once a minute until `stop`; the last result stays while the broker does not answer."""
        while not await wait_or_stop(stop, LOOK_SECONDS):
            try:
                await self.look()
            except Exception as error:  # the broker's condition reports that it is unreachable; the next check tries again
                _log.warning("topics could not be compared with the catalogue", error=described(error))

    async def look(self) -> list[TopicChange]:
        """Report the present differences in health, log and metrics, and return them.

        Raises NoIdentity and the broker's errors.
        """
        async with asyncio.timeout(_PATIENCE_SECONDS):
            found = await topics.plan(self._cluster)
        for change in found:
            if change not in self._known:
                log = _log.error if change.loses else _log.warning
                log("a topic differs from the catalogue", topic=change.topic, action=change.action, detail=change.detail)
        for change in self._known:
            metrics.TOPIC_DIFFERENCES.remove(self._health.service, change.topic, change.action)
        for change in found:
            metrics.TOPIC_DIFFERENCES.labels(self._health.service, change.topic, change.action).set(1)
        self._known = found
        self._health.report("topics", not any(change.loses for change in found), _said(found, self._cluster.security))
        return found


def _said(found: list[TopicChange], security: Security) -> str:
    missing = ", ".join(change.topic for change in found if change.action == "create")
    others = [f"{change.topic} {change.detail}" for change in found if change.action != "create"]
    user = security.username or security.certfile
    hidden = f" (or {user} has no right to describe them)" if user else ""
    said = ([f"missing: {missing}{hidden}"] if missing else []) + others
    mended = any(change.action in ("create", "configure") for change in found)
    return "; ".join(said) + ("; run `neuroweaver topics apply`" if mended else "")
