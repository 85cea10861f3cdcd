"""Defines the Prometheus metrics that every service exports: one registry per process, with the service as a label."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

CONSUMED = Counter("neuroweaver_consumed", "Records read from Kafka.", ["service"], registry=REGISTRY)
APPLIED = Counter("neuroweaver_applied", "Events folded into the projection.", ["service"], registry=REGISTRY)
SKIPPED = Counter(
    "neuroweaver_skipped", "Records without effect.", ["service", "why"], registry=REGISTRY
)  # why: known (duplicate or own), unhandled
DEAD_LETTERED = Counter(
    "neuroweaver_dead_lettered", "Records that could not be read or handled.", ["service"], registry=REGISTRY
)
PARKED = Counter("neuroweaver_parked", "Records that wait behind one of these.", ["service"], registry=REGISTRY)
DEAD_LETTERS = Gauge("neuroweaver_dead_letters", "Dead letters that are kept.", ["service", "state"], registry=REGISTRY)
DEAD_LETTERS_NOT_COPIED = Gauge(
    "neuroweaver_dead_letters_not_copied", "Dead letters whose copy is not on their topic yet.", ["service"],
    registry=REGISTRY,
)  # fmt: skip
GROUP_MEMBERS = Gauge(
    "neuroweaver_group_members", "Members of the service's consumer group.", ["service", "whose"], registry=REGISTRY
)  # whose: this deployment, another deployment, another program
STOPPED = Gauge(
    "neuroweaver_stopped_partitions",
    "Partitions that stopped at a record, or at the limit.",
    ["service"],
    registry=REGISTRY,
)
UNREAD_REMOVED = Gauge(
    "neuroweaver_unread_removed", "Offsets that were removed from the log before they were read.",
    ["service", "topic", "partition"], registry=REGISTRY,
)  # fmt: skip
FAILURES = Counter(
    "neuroweaver_handling_failures", "Times that handling a record failed.", ["service", "topic"], registry=REGISTRY
)
CONDITION = Gauge(
    "neuroweaver_condition", "1 where a condition of readiness holds; /health/detailed says why it does not.",
    ["service", "condition"], registry=REGISTRY,
)  # fmt: skip
CONDITION_CHANGES = Counter(
    "neuroweaver_condition_changes", "Times that a condition changed sides.", ["service", "condition"], registry=REGISTRY
)
TOPIC_DIFFERENCES = Gauge(
    "neuroweaver_topic_differences", "1 for what differs from the catalogue; `topics plan` says what.", ["service", "topic", "action"],
    registry=REGISTRY,
)  # fmt: skip
BATCH_SECONDS = Histogram("neuroweaver_batch_seconds", "Seconds per batch transaction.", ["service"], registry=REGISTRY)
LAG_SECONDS = Gauge(
    "neuroweaver_lag_seconds", "Age of the oldest record not yet applied.", ["service", "topic", "partition"],
    registry=REGISTRY,
)  # fmt: skip
OUTBOX_SECONDS = Gauge("neuroweaver_outbox_seconds", "Age of the oldest unpublished event.", ["service"], registry=REGISTRY)
OUTBOX_ROWS = Gauge("neuroweaver_outbox_rows", "Events waiting for the relay.", ["service"], registry=REGISTRY)
PUBLISHED = Counter("neuroweaver_published", "Events acknowledged by Kafka.", ["service"], registry=REGISTRY)
HTTP_SECONDS = Histogram(
    "neuroweaver_http_seconds", "Seconds per request.", ["method", "route", "status"], registry=REGISTRY
)
HTTP_STREAMS = Gauge("neuroweaver_http_streams", "Streams of events that are read.", registry=REGISTRY)
HTTP_GIVEN_UP = Counter(
    "neuroweaver_http_given_up", "Connections that were closed before their caller was done.", ["why"], registry=REGISTRY
)  # why: slow header, slow body, unread answer, made room, no room
