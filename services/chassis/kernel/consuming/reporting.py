"""Reports a consumer's work: in metrics and the log what a transaction did, in metrics and health what is not handled."""

from collections import Counter

from services.chassis.kernel import metrics
from services.chassis.kernel.consuming.assignment import Assignment
from services.chassis.kernel.transaction.batch import Applied
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger

_log = get_logger(__name__)
_LOGGED_DECISIONS = 20
"""Up to this many decisions of a transaction are logged one by one; more are summed up in one line."""

_LOGGED_LETTERS = 3
_LETTER_CHARACTERS = 300


def note(service: str, done: Applied) -> None:
    """Count and log the result of a transaction."""
    metrics.APPLIED.labels(service).inc(done.applied)
    metrics.SKIPPED.labels(service, "known").inc(done.skipped)
    metrics.SKIPPED.labels(service, "unhandled").inc(done.unhandled)
    metrics.DEAD_LETTERED.labels(service).inc(done.dead)
    metrics.PARKED.labels(service).inc(done.parked)
    if done.dead or done.parked:
        _log.warning(
            "records became dead letters", service=service, count=done.dead, parked=done.parked,
            first=[letter[:_LETTER_CHARACTERS] for letter in done.letters[:_LOGGED_LETTERS]],
        )  # fmt: skip
    if len(done.emitted) > _LOGGED_DECISIONS:
        kinds = Counter(event.type for event in done.emitted)
        _log.info("many decisions", decisions=len(done.emitted), types=dict(kinds))
        return
    for event in done.emitted:
        _log.info(
            "decided", type=event.type, event_id=event.id, job_id=event.correlation_id, subject=event.subject,
            sequence=event.sequence, causation_id=event.causation_id, trace_id=event.traceparent.split("-")[1],
        )  # fmt: skip


def report_handling(service: str, health: Health, assignment: Assignment) -> None:
    """Say whether records are handled: which partitions are stopped, and why the last poll was not applied."""
    stopped = [cursor.trouble.why for cursor in assignment.cursors.values() if cursor.trouble]
    faults = [assignment.fault] if assignment.fault else []
    faults += [why.reason for why in stopped if why.cause in ("record", "gap")]
    health.report("handling", not faults, "; ".join(faults)[:500])
    metrics.STOPPED.labels(service).set(len(stopped))
