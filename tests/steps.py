"""Events of attempts for tests of executors, as the orchestrator and executors would make them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.base import EventData
from schemas.envelope import Event
from schemas.ids import new_id, root_traceparent
from schemas.jobs import StepCancelRequested, StepEventData, StepRequested
from schemas.steps import EvaluateSettings, LabelSettings, StepSettings

START = datetime(2030, 1, 1, tzinfo=UTC)
ORCHESTRATOR = "neuroweaver/orchestrator"


def request(job_id: str = "job-1", step: str = "evaluate", attempt: int = 1, **fields: Any) -> StepRequested:
    """Return a request for an attempt, of kind evaluate (the trainer's) by default."""
    settings: StepSettings = EvaluateSettings(base_model="base")
    if fields.get("kind") == "label":
        settings = LabelSettings(base_model="base")
    given = {"kind": "evaluate", "settings": settings, "deadline": START + timedelta(days=1), **fields}
    return StepRequested(job_id=job_id, step=step, attempt=attempt, **given)


def cancel(about: StepEventData, reason: str = "cancel") -> StepCancelRequested:
    """Return the event by which the orchestrator closes an attempt."""
    return StepCancelRequested(
        job_id=about.job_id, step=about.step, attempt=about.attempt, kind=about.kind, reason=reason
    )  # fmt: skip


def an_event(
    data: EventData, source: str = ORCHESTRATOR, *, seconds: float = 0, sequence: int | None = None, subject: str = ""
) -> Event:
    """Return `data` as an event, `seconds` after START."""
    event_id = new_id()
    return Event(
        id=event_id,
        source=source,
        subject=subject,
        time=START + timedelta(seconds=seconds),
        data=data,
        sequence=sequence,
        correlation_id=str(getattr(data, "job_id", "")),
        causation_id=None,
        traceparent=root_traceparent(source, event_id),
    )
