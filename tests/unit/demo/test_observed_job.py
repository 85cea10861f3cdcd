"""The demo says of a job what the topics say, in whatever order two topics are read."""

from datetime import UTC, datetime, timedelta

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.envelope import Event
from schemas.jobs import (
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobRejected,
    StepCompleted,
    StepFailed,
    StepFault,
    StepRequested,
    StepResult,
    StepStarted,
)
from schemas.models import Lineage, ModelPromoted, ModelRegistered
from schemas.progress import StepProgressed
from schemas.reasons import Reason
from schemas.requests import JobRequested
from schemas.steps import PlannedStep, Policy, PrepareSettings, RegisterSettings
from schemas.topics import TOPIC_OF
from services.demo.observed_job import ObservedJob, fold
from services.demo.recipe import job_request

JOB = "demo-1"
START = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = job_request("sft", job_id=JOB, base_model="base")
PREPARE = PrepareSettings(base_model="base", dataset=REQUEST.dataset)
PLAN = (
    PlannedStep(name="prepare", kind="prepare", settings=PREPARE),
    PlannedStep(name="register", kind="register", settings=RegisterSettings(base_model="base", model="m")),
)
ACCEPTED = JobAccepted(job_id=JOB, request=REQUEST, plan=PLAN, policy=Policy())
REQUESTED = StepRequested(
    job_id=JOB, step="prepare", attempt=1, kind="prepare", settings=PREPARE, deadline=START + timedelta(days=1)
)
ASKED = JobRequested(job_id=JOB, request=REQUEST.model_dump(mode="json"))
ARTIFACT = ArtifactRef(uri="/a", sha256="0" * 64, size=1)
LINEAGE = Lineage(
    job_id=JOB, step="register", requester="r", base_model="b", base_model_sha256=None, dataset_sha256=None, results={}
)
REGISTERED = ModelRegistered(model="m", version="1.0.0", artifact=ARTIFACT, lineage=LINEAGE, metrics={})
PROMOTED = ModelPromoted(model="m", alias="candidate", version="1.0.0", previous=None)
COMPLETED = JobCompleted(job_id=JOB, model="m", version="1.0.0")


def started(attempt: int = 1) -> StepStarted:
    return StepStarted(job_id=JOB, step="prepare", attempt=attempt, kind="prepare", worker="w")


def progressed(done: int, attempt: int = 1) -> StepProgressed:
    return StepProgressed(job_id=JOB, step="prepare", attempt=attempt, kind="prepare", done=done, of=10)


def completed(attempt: int = 1) -> StepCompleted:
    return StepCompleted(
        job_id=JOB, step="prepare", attempt=attempt, kind="prepare", result=StepResult(metrics={"rows": 3.0})
    )


def failed(attempt: int = 1) -> StepFailed:
    fault = StepFault(cause="infrastructure", message="lost")
    return StepFailed(job_id=JOB, step="prepare", attempt=attempt, kind="prepare", fault=fault)


def observed(*facts: EventData) -> ObservedJob:
    """Each fact one second after the one before."""
    job = ObservedJob(JOB)
    for second, data in enumerate(facts):
        time = START + timedelta(seconds=second)
        event = Event(f"e{second}", "test", "", time, data, None, JOB, None, "")
        job = fold(job, TOPIC_OF[data.type_name()].name, event)
    return job


def test_steps_stand_in_the_order_of_the_plan_also_when_progress_is_read_before_the_plan() -> None:
    assert list(observed(ASKED, ACCEPTED).steps) == ["prepare", "register"]
    early = observed(progressed(3), ACCEPTED)
    assert list(early.steps) == ["prepare", "register"]
    assert early.steps["prepare"].progress == progressed(3)


def test_a_step_goes_from_waiting_to_done_and_its_time_is_counted_from_its_start() -> None:
    facts = [ASKED, ACCEPTED, REQUESTED, started(), progressed(5), completed()]
    states = [observed(*facts[:count]).steps["prepare"].state for count in range(2, len(facts) + 1)]
    assert states == ["waiting", "queued", "running", "running", "done"]
    view = observed(*facts).steps["prepare"]
    assert view.seconds == 2
    assert view.result is not None
    assert view.result.metrics == {"rows": 3.0}


def test_a_retry_forgets_the_fault_and_keeps_the_first_start() -> None:
    view = observed(ACCEPTED, started(1), failed(1), started(2), completed(2)).steps["prepare"]
    assert (view.state, view.fault, view.attempt, view.seconds) == ("done", None, 2, 3)


def test_a_late_word_of_a_replaced_attempt_or_an_ended_one_changes_nothing() -> None:
    assert (
        observed(ACCEPTED, started(2), failed(1), progressed(9, 1)).steps["prepare"]
        == observed(ACCEPTED, started(2)).steps["prepare"]
    )
    ended = observed(ACCEPTED, started(), completed(), progressed(1), started())
    assert ended.steps["prepare"].state == "done"
    assert ended.steps["prepare"].progress is None


def test_the_history_is_told_when_job_model_and_alias_are_known_in_any_order() -> None:
    assert not observed(ASKED, ACCEPTED, COMPLETED).complete
    assert not observed(ASKED, ACCEPTED, COMPLETED, REGISTERED).complete
    assert observed(ASKED, ACCEPTED, COMPLETED, REGISTERED, PROMOTED).complete
    assert observed(ASKED, ACCEPTED, REGISTERED, PROMOTED, COMPLETED).complete
    assert not observed(ASKED, ACCEPTED, REGISTERED, PROMOTED).complete


def test_a_job_without_a_model_or_with_another_end_is_told_at_once() -> None:
    fault = StepFault(cause="user", message="no data")
    reason = Reason(field="dataset", message="missing", remedy="add it")
    assert observed(ACCEPTED, JobCompleted(job_id=JOB, model=None, version=None)).complete
    assert observed(ACCEPTED, JobFailed(job_id=JOB, step="prepare", fault=fault)).failed_step == "prepare"
    assert observed(JobRejected(job_id=JOB, reasons=(reason,))).reasons == (reason,)
    assert observed(ACCEPTED, JobCancelled(job_id=JOB, reason="stopped")).outcome == "cancelled"
    assert all(
        observed(fact).complete
        for fact in (JobFailed(job_id=JOB, step=None, fault=fault), JobRejected(job_id=JOB, reasons=(reason,)))
    )


def test_records_are_counted_by_topic_and_the_job_timed_from_its_request() -> None:
    job = observed(ASKED, ACCEPTED, started(), progressed(1), completed(), REGISTERED, COMPLETED)
    assert job.counts == {
        "neuroweaver.requests": 1, "neuroweaver.jobs": 4, "neuroweaver.progress": 1, "neuroweaver.models": 1
    }  # fmt: skip
    assert job.seconds == 6
