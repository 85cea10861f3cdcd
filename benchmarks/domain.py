"""The smallest honest service: every request makes a row and one event of its own, so that nothing but the loop is measured."""

from datetime import datetime
from typing import Any

from schemas.envelope import Event
from schemas.jobs import JobRejected
from schemas.reasons import Reason
from schemas.requests import JobRequested
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, State, States
from services.chassis.kernel.records import Logged

TABLE = "tally"
REASON = Reason(field="pipeline", value="none", message="there is no such pipeline", remedy="choose another")


class Tally(State):
    """The state of a job."""

    requests: int = 0
    requester: str | None = None
    refused: int = 0


class TallyDomain:
    """Refuses every job once; it ignores events of other services."""

    handles = frozenset({"JobRequested", "JobRejected"})

    def __init__(self, service: str) -> None:
        self.source = f"neuroweaver/{service}"
        self.aggregates = {TABLE: AggregateType(TABLE, Tally)}

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """Return the job."""
        if event.type == "JobRejected" and event.source != self.source:
            return ()
        return (Ref(TABLE, event.data.job_id),)  # type: ignore[attr-defined]

    def owner(self, event: Event) -> Ref:
        """Return the job."""
        return self.touches(event)[0]

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        """Count one more request or refusal."""
        match event.data:
            case JobRequested(request=request):
                update = {
                    "requests": state.requests + 1,
                    "requester": str(request.get("requester")),
                    "correlation_id": event.correlation_id,
                    "opened_by": event.id,
                    "traceparent": event.traceparent,
                }
            case JobRejected():
                update = {"refused": state.refused + 1}
            case _:
                return state  # type: ignore[no-any-return]
        return state.model_copy(update=update)  # type: ignore[no-any-return]

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        """Refuse a job that was requested and is not refused yet."""
        state = states[ref]
        assert isinstance(state, Tally)
        if state.requests and not state.refused:
            return Decision(ref, ref.key, JobRejected(job_id=ref.key, reasons=(REASON,)))
        return None
