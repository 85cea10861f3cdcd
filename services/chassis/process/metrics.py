"""Defines the registry of a process, which `GET /metrics` shows, and the metrics of its health.

Each package of the chassis defines its metrics in a `metrics.py` of its own, all in this registry. The label `service` names the
service, of which a process may run several. A label has a closed set of values, so that no request and no record makes a time
series.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge

REGISTRY = CollectorRegistry()

CONDITION = Gauge(
    "neuroweaver_condition", "1 where a condition of readiness holds; /health/detailed says why it does not.",
    ["service", "condition"], registry=REGISTRY,
)  # fmt: skip
"""`condition`: the names in `Health.requires`. An alert on 0 names what keeps a service from being ready."""

CONDITION_CHANGES = Counter(
    "neuroweaver_condition_changes", "Times that a condition changed sides.", ["service", "condition"], registry=REGISTRY
)
"""`condition`: as above.

The first report of a condition does not count. A rate above a few per hour means that the service is unstable: check the
broker's, the database's and the network's logs of that time.
"""
