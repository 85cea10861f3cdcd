"""Metrics of the retention policy.

The label `kind` is that of a `Remover`: `checkpoints`, `inbox`, `projections` and so on, as `neuroweaver retention --dry-run` lists them.
"""

from prometheus_client import Counter

from services.chassis.process.metrics import REGISTRY

REMOVED = Counter(
    "neuroweaver_retention_removed", "Things removed by the retention policy.", ["service", "kind"], registry=REGISTRY
)
"""Files, folders or rows. Look at it when something is missing that was there before, or when a disk fills although it rises."""

REMOVED_BYTES = Counter(
    "neuroweaver_retention_removed_bytes", "Bytes removed by the retention policy.", ["service", "kind"], registry=REGISTRY
)
"""The size of what `REMOVED` counts. It shows which kind fills the disk or the database."""

FAILURES = Counter(
    "neuroweaver_retention_failures",
    "Times that a kind could not be checked.",
    ["service", "kind"],
    registry=REGISTRY,
)
"""The next run tries again, an hour later. If it keeps rising, the log says why, and that kind fills its disk or table."""
