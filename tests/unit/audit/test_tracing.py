"""A trace has all of a job, and says of every link whether it is there."""

from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.envelope import Event
from schemas.jobs import FeedbackRecorded, JobAccepted, JobRejected, StepCompleted, StepRequested, StepStarted
from schemas.models import ModelRegistered
from schemas.reasons import Reason
from schemas.requests import JobRequested
from schemas.steps import OUTPUTS_OF
from services.audit.tracing import Trace, trace
from services.cli.audit.trace_text import trace_lines
from tests.audit import MadeJob, artifact, changed, located


@pytest.fixture
def job() -> MadeJob:
    return MadeJob("job-1", "router")


def traced(events: list[Event], version: str | None = None) -> Trace:
    return trace("job-1", located(events), version)


def test_a_whole_job_is_complete_from_its_request_to_its_version(job: MadeJob) -> None:
    found = traced(job.events)
    assert found.missing == ()
    assert found.complete
    assert (found.status, found.requester, found.events) == ("completed", "relaycore", len(job.events))
    (made,) = found.versions
    assert (made.model, made.version, made.aliases) == ("router", "1.0.0", ("candidate",))
    assert made.artifact == artifact("job-1", "align", "adapter")
    assert [hop.type for hop in made.chain][:2] == ["JobRequested", "StepRequested.v2"]
    assert made.chain[-1].type == "ModelRegistered"
    assert [hop.type for hop in found.milestones] == ["JobRequested", "JobAccepted.v2", "JobCompleted"]


def test_every_step_is_shown_with_what_it_was_told_what_it_read_and_what_it_made(job: MadeJob) -> None:
    steps = {step.name: step for step in traced(job.events).steps}
    assert next(iter(steps)) == "prepare"
    assert steps["train"].settings["training"]["seed"] == 0
    assert steps["align"].inputs == {
        "preferences": artifact("job-1", "label", "preferences").sha256,
        "adapter": artifact("job-1", "train", "adapter").sha256,
    }
    assert steps["align"].outputs == {name: artifact("job-1", "align", name) for name in OUTPUTS_OF["train"]}
    assert steps["prepare"].facts["dataset_sha256"] == "d" * 64
    (batch,) = steps["label"].batches
    assert (batch.recorded.pairs, batch.counted) == (4, True)


@pytest.mark.parametrize(
    ("kind", "step", "missing"),
    [
        (JobRequested, None, "JobRequested"),
        (JobAccepted, None, "JobAccepted.v2"),
        (StepRequested, "train", "StepRequested.v2 of train, attempt 1"),
        (StepStarted, "train", "StepStarted of train, attempt 1"),
        (FeedbackRecorded, "label", "FeedbackRecorded of label, attempt 1"),
        (StepCompleted, "train", "StepCompleted of train (the step is running, the job completed)"),
        (ModelRegistered, None, "ModelRegistered of register"),
    ],
)
def test_each_event_that_was_removed_is_named(job: MadeJob, kind: type[EventData], step: str | None, missing: str) -> None:
    found = traced(job.without(kind, step))
    assert not found.complete
    assert missing in found.missing


def test_a_hole_in_the_numbers_is_named(job: MadeJob) -> None:
    found = traced(job.without(FeedbackRecorded))
    assert "the event of neuroweaver/feedback about job-1/label/1 with number 2" in found.missing


def test_a_number_that_no_log_can_reach_names_only_the_first_that_are_missing(job: MadeJob) -> None:
    far = [event._replace(sequence=2**62) if isinstance(event.data, FeedbackRecorded) else event for event in job.events]
    (said,) = [missing for missing in traced(far).missing if missing.startswith("the event of neuroweaver/feedback")]
    assert said.endswith("with number 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, …")


def test_a_chain_of_causes_that_is_torn_is_named(job: MadeJob) -> None:
    started = next(e for e in job.events if isinstance(e.data, StepStarted) and e.data.step == "register")
    found = traced([event for event in job.events if event is not started])
    registered = next(event for event in job.events if isinstance(event.data, ModelRegistered))
    assert f"the cause of ModelRegistered {registered.id}, in the chain from JobRequested to router@1.0.0" in found.missing


def test_an_artifact_that_no_step_made_and_one_that_is_not_what_was_read_are_named(job: MadeJob) -> None:
    other = ArtifactRef(uri="/elsewhere", sha256="e" * 64, size=1)

    def forged(event: Event) -> Event:
        match event.data:
            case StepRequested(step="align") as data:
                return changed(event, data.model_copy(update={"inputs": {**data.inputs, "adapter": other}}))
            case ModelRegistered() as data:
                return changed(event, data.model_copy(update={"artifact": other}))
        return event

    found = traced([forged(event) for event in job.events])
    assert f"the step that made {'e' * 64}, which align read as adapter" in found.missing
    read = artifact("job-1", "train", "adapter").sha256
    assert f"why align reports that it read {read} as adapter although its input is {'e' * 64}" in found.missing
    assert f"the request that gave {'e' * 64}, the artifact of router@1.0.0, to register" in found.missing


def test_a_version_without_digests_of_where_it_comes_from_is_not_complete(job: MadeJob) -> None:
    def unknown(event: Event) -> Event:
        if not isinstance(event.data, ModelRegistered):
            return event
        lineage = event.data.lineage.model_copy(
            update={"base_model_sha256": None, "dataset_sha256": None, "configuration": {}}
        )
        return changed(event, event.data.model_copy(update={"lineage": lineage}))

    assert traced([unknown(event) for event in job.events]).missing == (
        "the digest of the base model of router@1.0.0",
        "the digest of the data set of router@1.0.0",
        "the recipe of router@1.0.0",
    )


def test_a_rejected_job_says_why_it_made_nothing(job: MadeJob) -> None:
    reason = Reason(field="pipeline", message="unknown pipeline", remedy="use sft")
    rejected = changed(job.events[1], JobRejected(job_id="job-1", reasons=(reason,)))
    found = traced([job.events[0], rejected])
    assert found.status == "rejected"
    assert found.missing == ("JobAccepted.v2: the job was rejected: pipeline: unknown pipeline; use sft",)


def test_a_producers_duplicates_change_nothing(job: MadeJob) -> None:
    twice = traced([each for event in job.events for each in (event, event)])
    assert twice.complete
    assert twice.events == len(job.events)


def test_a_pipeline_that_registers_nothing_is_complete_without_a_version() -> None:
    job = MadeJob("job-1", "router", pipeline="sft")
    accepted = next(event.data for event in job.events if isinstance(event.data, JobAccepted))
    short = accepted.model_copy(update={"plan": accepted.plan[:1]})
    events = [changed(job.events[1], short) if event is job.events[1] else event for event in job.events[:5]]
    found = traced(events)
    assert (found.versions, found.missing) == ((), ())
    assert "No step of the plan registers a version." in list(trace_lines(found))


def test_a_trace_is_written_with_its_verdict_first_and_with_everything_in_it(job: MadeJob) -> None:
    text = "\n".join(trace_lines(traced(job.events)))
    assert text.splitlines()[1].startswith("The chain is complete")
    for part in ("router@1.0.0", "candidate", artifact("job-1", "align", "adapter").sha256, "b" * 64, "d" * 64, "seed=0"):
        assert part in text
    assert "4 preference pairs of 6 comparisons of 8 candidates by rules" in text
    broken = list(trace_lines(traced(job.without(FeedbackRecorded))))
    assert broken[1].startswith("The chain is NOT complete")
    assert "  - FeedbackRecorded of label, attempt 1" in broken


def test_batches_of_attempts_that_did_not_count_are_shown_as_such(job: MadeJob) -> None:
    def later(event: Event) -> Event:
        data: Any = event.data
        return changed(event, data.model_copy(update={"attempt": 2, "pairs": 9}))

    extra = [later(event) for event in job.events if isinstance(event.data, FeedbackRecorded)]
    events = [*job.events, *(event._replace(id="another", sequence=None) for event in extra)]
    label = next(step for step in traced(events).steps if step.name == "label")
    assert [(batch.recorded.pairs, batch.counted) for batch in label.batches] == [(4, True), (9, False)]
