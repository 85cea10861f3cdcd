"""Metrics of the way of records: read from Kafka, applied in a transaction, kept as dead letters, and published by the relay.

Counters count what this process did. Gauges of dead letters and of the outbox are read from the service's database, so they must not
be added up over replicas. `topic` and `partition` are those that the service consumes.
"""

from prometheus_client import Counter, Gauge, Histogram

from services.chassis.process.metrics import REGISTRY

# Reading

CONSUMED = Counter("neuroweaver_consumed", "Records read from Kafka.", ["service"], registry=REGISTRY)
"""Also counts records that are read again after a seek or a rebalance.

A rate of 0 while the lag grows means that the consumer makes no progress.
"""

LAG_SECONDS = Gauge(
    "neuroweaver_lag_seconds", "Age of the oldest record not yet applied.", ["service", "topic", "partition"],
    registry=REGISTRY,
)  # fmt: skip
"""0 at the end of a partition; NaN while the broker does not report the end.

Check this metric first when a job is slow, and alert on it.
"""

STOPPED = Gauge(
    "neuroweaver_stopped_partitions",
    "Partitions that stopped at a record, or at the limit.",
    ["service"],
    registry=REGISTRY,
)
"""Above 0, a person is needed: the conditions `handling` and `log`, and `neuroweaver partitions`, name partition and reason."""

FAILURES = Counter(
    "neuroweaver_handling_failures", "Times that handling a record failed.", ["service", "topic"], registry=REGISTRY
)
"""Counts every stop of a partition, so a record that is tried again counts again. A rising one shows which topic brings the fault."""

UNREAD_REMOVED = Gauge(
    "neuroweaver_unread_removed", "Offsets that were removed from the log before they were read.",
    ["service", "topic", "partition"], registry=REGISTRY,
)  # fmt: skip
"""A series exists only while a partition is stopped for this reason. It means lost records: the retention of the topic is too short or
somebody deleted records."""

# Applying

BATCH_SECONDS = Histogram("neuroweaver_batch_seconds", "Seconds per batch transaction.", ["service"], registry=REGISTRY)
"""Observes the transaction of each poll, failed ones included. When the lag grows, it tells a slow database (high) from too few
records (low)."""

APPLIED = Counter("neuroweaver_applied", "Events folded into the projection.", ["service"], registry=REGISTRY)
"""Counts after the commit, so an event that is rolled back and applied again counts once. Its rate is the throughput of the service."""

SKIPPED = Counter("neuroweaver_skipped", "Records without effect.", ["service", "why"], registry=REGISTRY)
"""`why`: `known` (own events that come back, producers' duplicates, records below the position, and discarded ones) or `unhandled`
(events of a type that the service does not handle). Both are normal; `known` leaps after a crash or a rebalance."""

# Dead letters

DEAD_LETTERED = Counter(
    "neuroweaver_dead_lettered", "Records that could not be read or handled.", ["service"], registry=REGISTRY
)
"""Counts records when they become dead letters. A burst follows a release or a producer that sends something new."""

PARKED = Counter("neuroweaver_parked", "Records that wait behind one of these.", ["service"], registry=REGISTRY)
"""Counts records that were parked because an earlier record of the same aggregate is a dead letter."""

DEAD_LETTERS = Gauge("neuroweaver_dead_letters", "Dead letters that are kept.", ["service", "state"], registry=REGISTRY)
"""`state`: `unreadable`, `failed`, `parked`, `discarded`, see `deadletters.models.LetterState`. Alert on `failed` and
`unreadable`; docs/how-to/handle-a-dead-letter.md says what to do."""

DEAD_LETTERS_NOT_COPIED = Gauge(
    "neuroweaver_dead_letters_not_copied", "Dead letters whose copy is not on their topic yet.", ["service"],
    registry=REGISTRY,
)  # fmt: skip
"""Only the process that relays for the service updates it. It is above 0 for a moment after a dead
letter. Where it stays, the condition `copying` says which record cannot be copied."""

# Publishing

OUTBOX_ROWS = Gauge("neuroweaver_outbox_rows", "Events waiting for the relay.", ["service"], registry=REGISTRY)
"""Only the process that relays for the service updates it. A growing one with `neuroweaver_published` at 0: Kafka takes nothing."""

OUTBOX_SECONDS = Gauge("neuroweaver_outbox_seconds", "Age of the oldest unpublished event.", ["service"], registry=REGISTRY)
"""Updated with `neuroweaver_outbox_rows`. Other services are late by this; the condition `relaying` says why."""

PUBLISHED = Counter("neuroweaver_published", "Events acknowledged by Kafka.", ["service"], registry=REGISTRY)
"""Counts events of the outbox only; latest progress of steps is sent without it. An event that is sent again counts again."""
