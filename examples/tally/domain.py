"""The tally's rules: it counts the requests for each of its jobs and refuses each job once. No I/O, no clock."""

from datetime import datetime, timedelta

from pydantic import Field

from schemas.envelope import Event
from schemas.jobs import JobRejected
from schemas.reasons import Reason
from schemas.requests import JobCancelRequested, JobRequested
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, State, States
from services.chassis.kernel.records import Logged

TALLY = "tally"
"""Name of the aggregate type and of its table."""


class Tally(State):
    """The state of one job.

    It counts, so that an event that is applied twice becomes visible. A state that must stay the same when an event is folded again
    (rule 8 of docs/architecture.md) stores what happened instead of how often.
    """

    requests: int = Field(default=0, description="JobRequested events that were applied.")
    order: tuple[str, ...] = Field(default=(), description="Ids of the applied events of other services, in their order.")
    refused: int = Field(default=0, description="Number of own refusals that were applied; 1 if everything works.")
    due: datetime | None = Field(default=None, description="When the service reports that time is up; null for never.")
    reminded: bool = Field(default=False, description="Whether it has reported that.")


class Tallies(AggregateType):
    """How tallies are stored: in the table of `tables.py`."""

    def __init__(self) -> None:
        super().__init__(TALLY, Tally)

    def due(self, state: Tally) -> datetime | None:
        """The chassis asks `decide` again at this time, without an event."""
        return None if state.reminded else state.due


class TallyDomain:
    """Refuses the jobs whose id starts with `prefix`, and a second time, with a reason, `delay` after the first request."""

    handles = frozenset({"JobRequested", "JobCancelRequested", "JobRejected"})

    def __init__(self, service: str, prefix: str, delay: timedelta | None = None) -> None:
        self.source, self.prefix, self.delay = f"neuroweaver/{service}", prefix, delay
        self.aggregates = {TALLY: Tallies()}

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """Return the tally of the event's job; none for a job of another prefix, or for a decision of another service."""
        data = event.data
        if isinstance(data, JobRejected) and event.source != self.source:
            return ()
        if isinstance(data, JobRequested | JobCancelRequested | JobRejected) and data.job_id.startswith(self.prefix):
            return (Ref(TALLY, data.job_id),)
        return ()

    def owner(self, event: Event) -> Ref:
        """Return the tally, which numbers every own event."""
        return self.touches(event)[0]

    def evolve(self, ref: Ref, state: Tally, event: Event, logged: Logged | None) -> Tally:
        """Return the tally after `event`; a replay calls only this function."""
        match event.data:
            case JobRequested():
                due = event.time + self.delay if self.delay else None
                return state.model_copy(
                    update={"requests": state.requests + 1, "order": (*state.order, event.id), "due": state.due or due}
                )
            case JobCancelRequested():
                return state.model_copy(update={"order": (*state.order, event.id)})
            case JobRejected(reasons=reasons) if reasons:
                return state.model_copy(update={"reminded": True})
            case JobRejected():
                return state.model_copy(update={"refused": state.refused + 1})
        return state

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        """Return the next own event that the state and the time require.

        The chassis calls it until it returns None, and never in a replay.
        """
        state = states[ref]
        assert isinstance(state, Tally)
        if state.requests and not state.refused:
            return Decision(ref, ref.key, JobRejected(job_id=ref.key, reasons=()))
        if state.due and not state.reminded and now >= state.due:
            reason = Reason(field="clock", message="time is up", remedy="none")
            return Decision(ref, ref.key, JobRejected(job_id=ref.key, reasons=(reason,)))
        return None
