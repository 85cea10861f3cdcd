"""Metrics of what is recorded elsewhere."""

from prometheus_client import Counter

from services.chassis.process.metrics import REGISTRY

DROPPED = Counter(
    "neuroweaver_tracking_dropped", "Measurements that were not recorded with MLflow.", ["service"], registry=REGISTRY
)
"""One measurement has all values of an optimiser step. A rise means that the tracking server is away for longer than the queue lasts, or
refuses what it is sent; the log says why. Trainings, their reports and TensorBoard files are complete all the same."""
