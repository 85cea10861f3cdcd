"""Given facts about a job, when one more arrives or time passes, then these decisions."""

from datetime import timedelta
from typing import Any

import pytest

from schemas.jobs import (
    FeedbackRecorded,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobRejected,
    StepCancelRequested,
    StepNeed,
    StepRequested,
    StepStarted,
)
from schemas.requests import JobRequested
from schemas.steps import CompressSettings, EvaluateSettings, LabelSettings, Policy, ScoreSettings, need_name
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.folding import Incoming
from services.orchestrator.domain.decide import due
from tests.unit.orchestrator.scenario import ARTIFACT, POLICY, START, JobScenario, a_request, names, one_request

SFT_STEPS = ("prepare", "evaluate-base", "train", "evaluate")


def accepted(**fields: Any) -> JobScenario:
    scenario = JobScenario()
    scenario.requested(**fields)
    assert scenario.state.status == "running"
    return scenario


# taking on


def test_a_valid_request_is_accepted_and_its_first_step_requested() -> None:
    scenario = JobScenario()
    decided = scenario.requested()
    assert names(decided) == ["JobAccepted.v2", "StepRequested.v2 prepare/1"]
    taken, first = decided
    assert isinstance(taken, JobAccepted)
    assert isinstance(first, StepRequested)
    assert taken.policy == POLICY
    assert taken.request.training.lora.rank == 16
    assert first.deadline == START + timedelta(seconds=POLICY.step_timeout_seconds)
    assert (first.inputs, first.results, first.not_before) == ({}, {}, None)


def test_a_faulty_request_is_rejected_with_reasons_and_nothing_else_happens() -> None:
    scenario = JobScenario()
    (rejected,) = scenario.requested(pipeline="magic")
    assert isinstance(rejected, JobRejected)
    assert [reason.field for reason in rejected.reasons] == ["pipeline"]
    assert scenario.after(1e6) == []
    assert scenario.state.status == "rejected"


def test_a_rejected_id_stays_rejected_also_for_a_corrected_request() -> None:
    scenario = JobScenario()
    scenario.requested(pipeline="magic")
    assert scenario.requested(pipeline="sft") == []
    assert scenario.state.status == "rejected"


def test_the_same_request_again_changes_nothing() -> None:
    scenario = accepted()
    before = scenario.state
    assert scenario.requested() == []
    assert scenario.state == before.model_copy(update={"others": scenario.state.others})
    assert scenario.state.conflicts == ()


def test_another_request_under_the_same_id_is_recorded_and_leaves_the_job_alone() -> None:
    scenario = accepted()
    before = scenario.state
    assert scenario.requested(event_id="other", priority=9) == []
    assert scenario.state == before.model_copy(update={"conflicts": ("other",), "others": scenario.state.others})


def test_a_flood_of_conflicts_keeps_the_row_small() -> None:
    scenario = accepted()
    for number in range(150):
        scenario.requested(priority=1, requester=f"r{number}")
    assert len(scenario.state.conflicts) == 100


def test_a_deadline_that_has_passed_when_the_request_is_read_rejects_it() -> None:
    scenario = JobScenario()
    scenario.unit.now = START + timedelta(days=2)
    (rejected,) = scenario.requested(deadline="2030-01-02T00:00:00Z")
    assert isinstance(rejected, JobRejected)
    assert rejected.reasons[0].message == "the deadline has passed"


def test_an_id_that_no_job_can_have_touches_nothing() -> None:
    scenario = JobScenario()
    event = scenario.event("relaycore", StepStarted(job_id="x" * 5000, step="train", attempt=1, kind="train", worker="w"))
    assert scenario.unit.domain.touches(event) == ()


# the graph


def test_steps_are_requested_when_all_they_need_is_completed() -> None:
    scenario = accepted()
    assert names(scenario.completed("prepare")) == ["StepRequested.v2 evaluate-base/1", "StepRequested.v2 train/1"]
    assert scenario.completed("evaluate-base") == []
    assert names(scenario.completed("train")) == ["StepRequested.v2 evaluate/1"]
    assert names(scenario.completed("evaluate")) == ["StepRequested.v2 register/1"]


def test_a_step_gets_the_artifacts_it_binds_and_the_results_of_all_its_ancestors() -> None:
    scenario = accepted()
    scenario.run("prepare", "evaluate-base")
    evaluate = one_request(scenario.completed("train"))
    assert evaluate.inputs == {"dataset": ARTIFACT, "adapter": ARTIFACT}
    assert set(evaluate.results) == {"prepare", "train"}
    register = one_request(scenario.completed("evaluate"))
    assert set(register.results) == set(SFT_STEPS)
    assert register.results["evaluate"].metrics == {"loss": 0.5}


def test_a_step_knows_requester_and_priority() -> None:
    scenario = JobScenario()
    _, first = scenario.requested(priority=5)
    assert isinstance(first, StepRequested)
    assert (first.requester, first.priority) == ("relaycore", 5)


def test_the_job_is_completed_with_what_was_registered() -> None:
    scenario = accepted()
    (completed,) = scenario.run(*SFT_STEPS, "register")
    assert completed == JobCompleted(job_id="job-1", model="router", version="1.0.0")
    assert scenario.state.status == "completed"
    assert due(scenario.state) is None


def test_a_pipeline_that_registers_nothing_is_completed_without_a_model() -> None:
    scenario = accepted(pipeline=[{"name": "prepare", "kind": "prepare"}])
    assert scenario.completed("prepare") == [JobCompleted(job_id="job-1", model=None, version=None)]


def test_a_step_completed_without_an_output_that_another_reads_fails_the_job() -> None:
    scenario = accepted()
    (failed,) = scenario.completed("prepare", outputs={})
    assert isinstance(failed, JobFailed)
    assert (failed.step, failed.fault.cause) == ("prepare", "infrastructure")
    assert "'dataset'" in failed.fault.message


def test_what_is_told_after_the_end_decides_nothing() -> None:
    scenario = accepted()
    scenario.run(*SFT_STEPS, "register")
    assert scenario.cancel() == []
    assert scenario.completed("train") == []
    assert scenario.requested(priority=3) == []
    assert scenario.state.status == "completed"


# what a step needs


def test_a_step_is_requested_with_the_need_that_prepare_estimates_for_it() -> None:
    scenario = accepted()
    small, large = StepNeed(memory_bytes=1000), StepNeed(memory_bytes=5000, device_bytes=7000)
    after = scenario.completed("prepare", needs={"training": large, "generation": small, "kto": small})
    needs = {request.step: request.need for request in after if isinstance(request, StepRequested)}
    assert needs == {"evaluate-base": small, "train": large}
    (evaluate,) = scenario.run("train")
    assert isinstance(evaluate, StepRequested)
    assert evaluate.need == small
    scenario.run("evaluate-base")
    (register,) = scenario.run("evaluate")
    assert isinstance(register, StepRequested)
    assert register.need is None


def test_judging_and_compressing_have_needs_of_their_own() -> None:
    kinds = (LabelSettings, ScoreSettings, CompressSettings, EvaluateSettings)
    assert [need_name(kind(base_model="b")) for kind in kinds] == ["judging", "judging", "compression", "generation"]


def test_without_an_estimate_the_need_of_a_step_is_unknown() -> None:
    after = accepted().completed("prepare")
    assert {request.need for request in after if isinstance(request, StepRequested)} == {None}


# trying again


def test_a_lost_attempt_is_tried_again_after_a_wait_that_doubles_up_to_its_limit() -> None:
    scenario = accepted()
    second = one_request(scenario.failed("prepare", 1))
    assert (second.attempt, second.not_before) == (2, START + timedelta(seconds=10))
    assert second.deadline == START + timedelta(seconds=10 + 1000)
    third = one_request(scenario.failed("prepare", 2))
    assert (third.attempt, third.not_before) == (3, START + timedelta(seconds=15))


def test_retries_end_and_the_job_fails_with_the_step_and_its_fault() -> None:
    scenario = accepted()
    scenario.failed("prepare", 1)
    scenario.failed("prepare", 2)
    (failed,) = scenario.failed("prepare", 3)
    assert isinstance(failed, JobFailed)
    assert (failed.step, failed.fault.message, failed.fault.log_tail) == ("prepare", "it broke", ("line 1", "line 2"))
    assert scenario.state.status == "failed"


def test_a_fault_of_the_user_is_not_tried_again() -> None:
    scenario = accepted()
    assert names(scenario.failed("prepare", 1, cause="user")) == ["JobFailed"]


def test_causes_are_counted_apart() -> None:
    scenario = accepted()
    scenario.failed("prepare", 1, cause="infrastructure")
    scenario.failed("prepare", 2, cause="infrastructure")
    fourth = one_request(scenario.failed("prepare", 3, cause="memory"))
    assert (fourth.attempt, fourth.memory_failures) == (4, 1)
    assert names(scenario.failed("prepare", 4, cause="memory")) == ["JobFailed"]


def test_failures_of_one_step_do_not_count_for_another() -> None:
    scenario = accepted()
    scenario.failed("prepare", 1)
    scenario.failed("prepare", 2)
    scenario.completed("prepare", 3)
    assert names(scenario.failed("train", 1)) == ["StepRequested.v2 train/2"]


def test_an_unknown_cause_counts_as_infrastructure() -> None:
    scenario = accepted()
    assert names(scenario.failed("prepare", 1, cause="cosmic rays")) == ["StepRequested.v2 prepare/2"]


def test_an_attempt_that_its_executor_stopped_unasked_is_tried_again() -> None:
    scenario = accepted()
    assert names(scenario.stopped("prepare")) == ["StepRequested.v2 prepare/2"]


def test_when_a_step_fails_for_good_its_siblings_are_stopped_first() -> None:
    scenario = accepted()
    scenario.completed("prepare")
    decided = scenario.failed("train", 1, cause="user")
    assert names(decided) == ["StepCancelRequested evaluate-base/1", "JobFailed"]
    assert isinstance(decided[0], StepCancelRequested)
    assert (decided[0].reason, decided[0].kind) == ("failing", "evaluate")


def test_policies_of_running_jobs_stay_when_the_settings_change() -> None:
    scenario = accepted()
    scenario.unit.domain.policy = Policy(infrastructure_retries=0)  # type: ignore[attr-defined]
    assert names(scenario.failed("prepare", 1)) == ["StepRequested.v2 prepare/2"]


# deadlines


def test_an_attempt_without_an_outcome_is_closed_at_its_deadline_and_tried_again() -> None:
    scenario = accepted()
    scenario.started("prepare")
    assert scenario.after(POLICY.step_timeout_seconds - 1) == []
    decided = scenario.after(1)
    assert names(decided) == ["StepCancelRequested prepare/1", "StepRequested.v2 prepare/2"]
    assert isinstance(decided[0], StepCancelRequested)
    assert decided[0].reason == "deadline"


def test_what_a_closed_attempt_brings_later_no_longer_counts() -> None:
    scenario = accepted()
    scenario.after(POLICY.step_timeout_seconds)
    assert scenario.completed("prepare", 1) == []
    assert names(scenario.completed("prepare", 2)) == ["StepRequested.v2 evaluate-base/1", "StepRequested.v2 train/1"]


def test_deadlines_of_attempts_count_as_infrastructure() -> None:
    scenario = accepted()
    scenario.after(POLICY.step_timeout_seconds)
    scenario.after(POLICY.step_timeout_seconds + 10)
    decided = scenario.after(POLICY.step_timeout_seconds + 15)
    assert names(decided) == ["StepCancelRequested prepare/3", "JobFailed"]
    failed = decided[1]
    assert isinstance(failed, JobFailed)
    assert "no outcome by its deadline" in failed.fault.message


def test_no_attempt_outlives_the_job() -> None:
    scenario = JobScenario()
    _, first = scenario.requested(deadline="2030-01-01T00:05:00Z")
    assert isinstance(first, StepRequested)
    assert first.deadline == START + timedelta(minutes=5)


def test_at_its_own_deadline_the_job_stops_what_is_open_and_fails_without_a_step() -> None:
    scenario = accepted(deadline="2030-01-01T00:05:00Z")
    scenario.completed("prepare")
    assert scenario.after(299) == []
    decided = scenario.after(1)
    assert names(decided) == ["StepCancelRequested evaluate-base/1", "StepCancelRequested train/1", "JobFailed"]
    failed = decided[-1]
    assert isinstance(failed, JobFailed)
    assert (failed.step, failed.fault.cause, failed.fault.reasons[0].field) == (None, "user", "deadline")


def test_a_last_step_completed_before_anybody_noticed_the_deadline_completes_the_job() -> None:
    scenario = accepted(deadline="2030-01-01T00:05:00Z")
    scenario.run(*SFT_STEPS)
    scenario.unit.now += timedelta(hours=1)
    assert names(scenario.completed("register")) == ["JobCompleted"]


# cancelling


def test_a_job_of_which_nothing_runs_is_cancelled_at_once() -> None:
    scenario = JobScenario()
    assert scenario.cancel("changed my mind") == []
    decided = scenario.requested()
    assert names(decided) == ["JobAccepted.v2", "JobCancelled"]
    assert decided[1] == JobCancelled(job_id="job-1", reason="changed my mind")


def test_a_cancel_stops_what_is_open_and_waits_until_it_has_stopped() -> None:
    scenario = accepted()
    scenario.completed("prepare")
    assert names(scenario.cancel()) == ["StepCancelRequested evaluate-base/1", "StepCancelRequested train/1"]
    assert scenario.state.status == "cancelling"
    assert scenario.stopped("evaluate-base") == []
    assert scenario.stopped("train") == [JobCancelled(job_id="job-1", reason="cancelled by relaycore")]


def test_a_cancel_does_not_wait_longer_than_its_grace() -> None:
    scenario = accepted()
    scenario.cancel()
    assert scenario.after(POLICY.cancel_grace_seconds - 1) == []
    assert names(scenario.after(1)) == ["JobCancelled"]
    assert scenario.stopped("prepare") == []


def test_a_step_that_completes_while_it_is_being_cancelled_does_not_revive_the_job() -> None:
    scenario = accepted()
    scenario.cancel()
    assert names(scenario.completed("prepare")) == ["JobCancelled"]


def test_a_second_cancel_changes_nothing() -> None:
    scenario = accepted()
    scenario.cancel("first")
    scenario.unit.now += timedelta(seconds=5)
    assert scenario.cancel("second") == []
    assert names(scenario.stopped("prepare")) == ["JobCancelled"]
    assert scenario.state.cancel
    assert scenario.state.cancel.reason == "first"


def test_a_cancel_of_a_rejected_job_changes_nothing_that_counts() -> None:
    scenario = JobScenario()
    scenario.requested(pipeline="magic")
    assert scenario.cancel() == []
    assert scenario.state.status == "rejected"


def test_a_cancel_alone_makes_no_job() -> None:
    scenario = JobScenario()
    scenario.cancel()
    assert scenario.state.status is None
    assert due(scenario.state) is None


# facts that decide nothing


def test_starts_are_counted_and_the_first_is_kept() -> None:
    scenario = accepted()
    scenario.started("prepare")
    scenario.unit.now += timedelta(seconds=30)
    scenario.started("prepare")
    started = scenario.state.attempts["prepare"][1].started
    assert started
    assert (started.at, started.times) == (START, 2)


def test_feedback_is_kept_with_its_attempt() -> None:
    scenario = accepted(pipeline="rlaif")
    feedback = FeedbackRecorded(
        job_id="job-1", step="label", attempt=1, kind="label", judge="rules", candidates=4, comparisons=2, pairs=1, ties=1,
        invalid=0, agreement=1.0, position_consistency=None, longer_preferred=0.0,
    )  # fmt: skip
    assert scenario.tell(scenario.event("neuroweaver/feedback", feedback, sequence=1)) == []
    assert scenario.state.attempts["label"][1].feedback == feedback


# the ticker


@pytest.mark.parametrize("seconds", [0.0, 1.0, 999.0])
def test_due_is_when_decide_has_something_to_say(seconds: float) -> None:
    scenario = accepted()
    when = due(scenario.state)
    assert when
    scenario.unit.now = when - timedelta(seconds=1 + seconds)
    assert scenario.after(0) == []
    scenario.unit.now = when
    assert scenario.after(0) != []


def test_a_row_that_was_folded_without_deciding_is_due_at_once() -> None:
    """As after a lost database: the log is folded with decide off, and the ticker takes the work up."""
    scenario = JobScenario()
    event = scenario.event("relaycore", JobRequested(job_id="job-1", request=a_request()))
    row = scenario.unit.rows[scenario.ref]
    row.state = scenario.unit.domain.evolve(scenario.ref, row.state, event, Logged(START, "requests", 0, 0))
    when = due(scenario.state)
    assert when is not None
    assert when < START
    assert names(scenario.after(0)) == ["JobAccepted.v2", "StepRequested.v2 prepare/1"]


def test_own_events_that_come_back_change_nothing() -> None:
    scenario = accepted()
    scenario.completed("prepare")
    before = scenario.state
    for own in scenario.unit.emitted[:]:
        scenario.unit.fold(Incoming(own, Logged(scenario.now, "neuroweaver.jobs", 0, 1)))
    assert scenario.state == before
