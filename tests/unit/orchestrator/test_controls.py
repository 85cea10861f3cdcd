"""Given a job, when somebody asks to retry, pause, resume or reprioritise it, then these events."""

from datetime import timedelta

import pytest

from schemas.base import EventData
from schemas.jobs import JobControlled, JobControlRefused, StepPriorityChanged, StepRequested
from tests.unit.orchestrator.scenario import START, JobScenario, names, one_request

PIPELINE = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
    {"name": "register", "kind": "register", "inputs": {"adapter": "train.adapter"}},
]


@pytest.fixture
def job() -> JobScenario:
    scenario = JobScenario()
    scenario.requested(pipeline=PIPELINE)
    return scenario


def status(job: JobScenario) -> str | None:
    return job.state.status


def failed_in_training(job: JobScenario) -> None:
    job.run("prepare")
    job.failed("train", cause="user")
    assert status(job) == "failed"


def refusal(decided: list[EventData]) -> str:
    (data,) = decided
    assert isinstance(data, JobControlRefused)
    return "; ".join(map(str, data.reasons))


def test_a_failed_job_goes_on_from_its_failed_step_and_keeps_what_was_completed(job: JobScenario) -> None:
    failed_in_training(job)
    decided = job.control("retry")
    assert names(decided) == ["JobControlled", "StepRequested.v2 train/2"]
    request = one_request(decided[1:])
    assert request.inputs["dataset"] == request.results["prepare"].outputs["dataset"]
    assert request.not_before is None, "a person asked for it, so it does not wait"
    assert status(job) == "running"
    job.started("train", 2)
    assert names(job.completed("train", 2)) == ["StepRequested.v2 register/1"]
    assert names(job.run("register")) == ["JobCompleted"]


def test_after_a_retry_the_step_has_all_its_retries_again(job: JobScenario) -> None:
    job.run("prepare")
    for attempt in (1, 2, 3):
        job.after(100)
        job.failed("train", attempt)
    assert status(job) == "failed"
    assert names(job.control("retry")) == ["JobControlled", "StepRequested.v2 train/4"]
    job.failed("train", 4)
    assert status(job) == "running"
    assert names(job.after(100)) in ([], ["StepRequested.v2 train/5"])
    job.failed("train", 5)
    job.after(100)
    job.failed("train", 6)
    assert status(job) == "failed"


def test_a_retried_step_still_knows_how_often_it_ran_out_of_memory(job: JobScenario) -> None:
    job.run("prepare")
    job.failed("train", 1, cause="memory")
    job.after(100)
    job.failed("train", 2, cause="memory")
    assert status(job) == "failed"
    assert one_request(job.control("retry")[1:]).memory_failures == 2


def test_a_job_can_be_retried_again_after_it_has_failed_again(job: JobScenario) -> None:
    failed_in_training(job)
    job.control("retry")
    job.failed("train", 2, cause="user")
    assert status(job) == "failed"
    job.after(1)
    assert names(job.control("retry")) == ["JobControlled", "StepRequested.v2 train/3"]


@pytest.mark.parametrize("control", ["retry", "resume", "dance"])
def test_what_a_running_job_cannot_do_is_refused_with_the_reason_and_what_to_do(job: JobScenario, control: str) -> None:
    said = refusal(job.control(control))
    assert said.startswith("control: ")
    assert control in said
    assert status(job) == "running"


def test_a_refused_retry_is_not_remembered_for_a_later_failure(job: JobScenario) -> None:
    refusal(job.control("retry"))
    failed_in_training(job)
    assert job.after(1000) == []


def test_a_failed_job_whose_deadline_has_passed_is_not_retried() -> None:
    job = JobScenario()
    job.requested(pipeline=PIPELINE, deadline=(START + timedelta(seconds=50)).isoformat())
    job.after(60)
    assert status(job) == "failed"
    assert "send it under a new job_id with a later one" in refusal(job.control("retry"))


def test_a_paused_job_stops_its_steps_and_begins_no_other_until_it_is_resumed(job: JobScenario) -> None:
    job.run("prepare")
    job.started("train")
    decided = job.control("pause")
    assert names(decided) == ["JobControlled", "StepCancelRequested train/1"]
    assert decided[1].reason == "pause"  # type: ignore[attr-defined]
    assert status(job) == "paused"
    assert job.stopped("train") == []
    assert job.after(10_000) == [], "no deadline of the step and no retry is due while the job is paused"
    assert names(job.control("resume")) == ["JobControlled", "StepRequested.v2 train/2"]
    assert names(job.completed("train", 2)) == ["StepRequested.v2 register/1"]


def test_a_resume_under_the_id_of_the_pause_is_another_request(job: JobScenario) -> None:
    """A sender may reuse an id; the contract calls the same id with another content another event."""
    job.run("prepare")
    assert names(job.control("pause", event_id="used")) == ["JobControlled", "StepCancelRequested train/1"]
    assert names(job.control("resume", event_id="used"))[0] == "JobControlled"
    assert status(job) == "running"
    assert job.control("resume", event_id="used") == []


def test_a_resumed_step_does_not_wait_again_for_an_earlier_failure(job: JobScenario) -> None:
    job.run("prepare")
    job.failed("train", 1)
    job.after(10)
    job.started("train", 2)
    job.control("pause")
    job.stopped("train", 2)
    _, request = job.control("resume")
    assert isinstance(request, StepRequested)
    assert (request.attempt, request.not_before) == (3, None)


def test_a_resumed_step_waits_until_the_paused_attempt_has_stopped_or_the_grace_period_is_over(job: JobScenario) -> None:
    job.run("prepare")
    job.control("pause")
    assert names(job.control("resume")) == ["JobControlled"]
    assert job.after(59) == []
    assert names(job.after(2)) == ["StepRequested.v2 train/2"]


def test_a_pause_costs_no_retry(job: JobScenario) -> None:
    job.run("prepare")
    for attempt in range(1, 6):
        job.after(1)
        job.control("pause")
        job.stopped("train", attempt)
        job.after(1)
        job.control("resume")
    assert status(job) == "running"
    assert not list(job.state.failures("train"))


def test_a_paused_job_can_be_cancelled(job: JobScenario) -> None:
    job.control("pause")
    job.stopped("prepare")
    assert names(job.cancel()) == ["JobCancelled"]


def test_a_new_priority_reaches_the_attempts_that_wait_and_those_that_come(job: JobScenario) -> None:
    decided = job.control("priority", 7)
    assert names(decided) == ["JobControlled", "StepPriorityChanged prepare/1"]
    assert isinstance(decided[1], StepPriorityChanged)
    assert decided[1].priority == 7
    assert one_request(job.run("prepare")).priority == 7


def test_a_priority_that_is_none_is_refused(job: JobScenario) -> None:
    assert "send a number from -100 to 100" in refusal(job.control("priority", 101))
    job.after(1)
    assert "priority" in refusal(job.control("priority"))


def test_of_requests_of_one_kind_the_latest_counts_in_whatever_order_they_are_read(job: JobScenario) -> None:
    job.after(10)
    job.control("pause")
    assert status(job) == "paused"
    job.unit.now -= timedelta(seconds=5)
    assert job.control("resume") == [], "it was sent before the pause"
    assert status(job) == "paused"


def test_a_pause_that_is_read_before_the_request_takes_effect_when_the_job_is_accepted() -> None:
    job = JobScenario()
    assert job.control("pause") == []
    decided = job.requested(pipeline=PIPELINE)
    assert names(decided) == ["JobAccepted.v2", "JobControlled"]
    assert isinstance(decided[1], JobControlled)
    assert status(job) == "paused"


def test_running_attempts_are_asked_for_a_checkpoint_once(job: JobScenario) -> None:
    assert "none of the job's steps runs" in refusal(job.control("checkpoint"))
    job.run("prepare")
    job.started("train")
    job.after(1)
    assert names(job.control("checkpoint")) == ["JobControlled", "StepCheckpointRequested train/1"]
    assert job.after(10) == []
    assert names(job.control("checkpoint")) == ["JobControlled", "StepCheckpointRequested train/1"]


def test_a_job_whose_time_is_up_writes_checkpoints_and_fails_in_words_and_a_retry_gives_it_the_time_again() -> None:
    job = JobScenario()
    job.requested(pipeline=PIPELINE, max_duration=100)
    job.run("prepare")
    assert job.after(99) == []
    decided = job.after(1)
    assert names(decided) == ["StepCancelRequested train/1", "JobFailed"]
    assert "max_duration" in decided[1].fault.message  # type: ignore[attr-defined]
    assert "retry it" in decided[1].fault.message  # type: ignore[attr-defined]
    assert names(job.control("retry")) == ["JobControlled", "StepRequested.v2 train/2"]
    assert job.after(99) == []
    assert status(job) == "running"
    job.after(1)
    assert status(job) == "failed"


def test_a_process_that_hung_has_retries_of_its_own(job: JobScenario) -> None:
    for attempt, cause in enumerate(("infrastructure", "hung", "infrastructure"), 1):
        job.failed("prepare", attempt, cause=cause)
        job.after(100)
        assert status(job) == "running"
    job.failed("prepare", 4, cause="hung")
    job.after(100)
    assert status(job) == "running"
    job.failed("prepare", 5, cause="hung")
    assert status(job) == "failed"
