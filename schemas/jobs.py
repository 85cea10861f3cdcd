"""Defines the events about jobs that the services write, ordered per job."""

from typing import Annotated

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import EventData, Frozen, Moment
from schemas.reasons import Reason
from schemas.requests import JobRequest
from schemas.steps import PlannedStep, Policy, StepSettings
from schemas.usage import StepUsage

CAUSES = ("infrastructure", "memory", "hung", "user")
"""Why a step failed; retries are counted separately for each cause."""

_DECIDED_ON = (
    "Digest of the request that this decides on. Of several requests under one job id, this one counts from now on."
)

JobId = Annotated[str, Field(description="The job's id and the record's key.")]


class JobAccepted(EventData):
    """The orchestrator accepted the job. The event contains everything that later decisions need."""

    job_id: JobId
    request: JobRequest = Field(description="The normalised request with its defaults.")
    plan: tuple[PlannedStep, ...] = Field(description="The graph of steps, in an order that respects `needs`.")
    policy: Policy = Field(description="Retries and time-outs of this job.")
    request_sha256: str | None = Field(default=None, description=_DECIDED_ON)

    @classmethod
    def type_name(cls) -> str:
        """The second version: plans and requests may contain steps of kind compress."""
        return "JobAccepted.v2"


class JobRejected(EventData):
    """The orchestrator refused the job. The id stays refused."""

    job_id: JobId
    reasons: tuple[Reason, ...] = Field(description="Why, and what to change; send the corrected request under a new id.")
    request_sha256: str | None = Field(default=None, description=_DECIDED_ON)


Usage = Annotated[
    StepUsage | None,
    Field(description="What the attempt used; null: it did not run, or an earlier release did not measure it."),
]


class StepEventData(EventData):
    """The fields of every event about one attempt of one step."""

    job_id: JobId
    step: str = Field(description="Name of the step in the plan.")
    attempt: int = Field(ge=1, description="Number of the attempt, starting at 1.")
    kind: str = Field(description="Kind of the step; decides who executes it.")


class StepNeed(Frozen):
    """What a step is estimated to use of a machine while it runs."""

    memory_bytes: int = Field(ge=0, description="Main memory.")
    device_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Memory of one GPU; null: unknown, because it was estimated on a machine without GPUs.",
    )


class StepResult(Frozen):
    """The result of a completed step."""

    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of the artifacts that the step read, by input name; they form the chain of lineage.",
    )
    outputs: dict[str, ArtifactRef] = Field(default_factory=dict, description="The step's artifacts by output name.")
    metrics: dict[str, float | None] = Field(default_factory=dict, description="Numbers by name; null: not measurable.")
    facts: dict[str, str] = Field(default_factory=dict, description="Digests, versions and other text by name.")
    needs: dict[str, StepNeed] = Field(
        default_factory=dict,
        description="What later steps are estimated to need: by the section of the request that configures a training, "
        "`generation` for steps that generate answers, `compression` for those of kind compress, and `judging` for those whose judge is "
        "a model. A step of kind prepare tells it.",
    )


class StepRequested(StepEventData):
    """The orchestrator requests one attempt. The event contains everything that the executor needs, resolved."""

    settings: StepSettings = Field(description="Typed settings of the step.")
    inputs: dict[str, ArtifactRef] = Field(default_factory=dict, description="Resolved artifacts by input name.")
    results: dict[str, StepResult] = Field(
        default_factory=dict, description="Results of all steps completed before this one, by step; they are its lineage."
    )
    requester: str = Field(default="unknown", description="Who requested the job.")
    priority: int = Field(default=0, description="The job's priority; higher runs earlier.")
    not_before: Moment | None = Field(
        default=None,
        description="Earliest start by the orchestrator's clock; null: at once. An executor waits for the difference "
        "between this and `ce_time` after it read the event, by its own clock.",
    )
    deadline: Moment = Field(description="The orchestrator closes the attempt if it has no outcome by then.")
    memory_failures: int = Field(default=0, ge=0, description="Number of earlier attempts that ran out of memory.")
    need: StepNeed | None = Field(
        default=None, description="What the attempt is estimated to use, as an earlier step tells; null: unknown."
    )

    @classmethod
    def type_name(cls) -> str:
        """The second version: plans and requests may contain steps of kind compress."""
        return "StepRequested.v2"


class StepStarted(StepEventData):
    """A worker started the attempt or took it over."""

    worker: str = Field(description="Host and process of the worker.")
    cores: int | None = Field(default=None, description="Processor cores that the attempt counts there; null: not told.")
    devices: int | None = Field(default=None, description="GPUs that it counts there; null: not told.")


class StepCompleted(StepEventData):
    """The attempt succeeded, and its artifacts are stored."""

    result: StepResult
    usage: Usage = None


class StepFault(Frozen):
    """Why an attempt failed."""

    cause: str = Field(description="infrastructure, memory, hung or user.")
    message: str = Field(description="What went wrong.")
    reasons: tuple[Reason, ...] = Field(
        default=(), description="Field, value and remedy, if the user can correct the fault."
    )
    log_tail: tuple[str, ...] = Field(default=(), description="Last lines of the step's log, oldest first.")
    report: ArtifactRef | None = Field(
        default=None, description="A page about the failure, for people; null: there is none."
    )


class StepFailed(StepEventData):
    """The attempt failed. The orchestrator decides whether to retry."""

    fault: StepFault
    usage: Usage = None


class StepCancelRequested(StepEventData):
    """The orchestrator closed the attempt: its outcome no longer counts."""

    reason: str = Field(description="cancel, deadline, failing or pause.")


class StepCancelled(StepEventData):
    """The executor stopped the attempt, or removed it from its queue."""

    usage: Usage = None


class StepPriorityChanged(StepEventData):
    """The priority of an attempt that has no outcome is another one from now on."""

    priority: int = Field(description="Higher runs earlier.")


class StepCheckpointRequested(StepEventData):
    """A running attempt is asked to write a checkpoint now and to go on; kinds without checkpoints ignore it."""


class FeedbackRecorded(StepEventData):
    """Statistics of the AI feedback of a label step."""

    judge: str = Field(description="Judge and model, for example `local/likelihood:SmolLM2`.")
    candidates: int = Field(ge=0, description="Number of candidates.")
    comparisons: int = Field(ge=0, description="Number of pairs of candidates that were compared.")
    pairs: int = Field(ge=0, description="Number of preference pairs recorded.")
    ties: int = Field(ge=0, description="Number of comparisons below the margin or with another result in swapped order.")
    invalid: int = Field(ge=0, description="Number of candidates or comparisons without a usable judgement.")
    agreement: float | None = Field(
        description="Share of pairs on which the rubric's rules agree with the judge; null without rules."
    )
    position_consistency: float | None = Field(
        description="Share of comparisons with the same verdict in both orders; null if candidates are scored singly."
    )
    longer_preferred: float | None = Field(
        description="Share of pairs whose chosen text is the longer one; null without pairs."
    )


class JobCompleted(EventData):
    """All steps are completed."""

    job_id: JobId
    model: str | None = Field(description="Registered model; null for a pipeline without a register step.")
    version: str | None = Field(description="Registered version.")


class JobFailed(EventData):
    """The job ended without a model."""

    job_id: JobId
    step: str | None = Field(description="The step that failed finally; null if the job's own deadline passed.")
    fault: StepFault


class JobCancelled(EventData):
    """The job was cancelled. Completed steps stay completed."""

    job_id: JobId
    reason: str = Field(description="Why it was cancelled.")


class AttemptsSoFar(Frozen):
    """How often a step was tried."""

    step: str = Field(description="Name of the step.")
    attempts: int = Field(ge=1, description="Number of its latest attempt.")


class JobControlled(EventData):
    """The orchestrator does what a JobControlRequested asks for.

    After `retry` the job runs again: steps that are completed stay so, and every other step begins a new attempt.
    """

    job_id: JobId
    control: str = Field(description="retry, pause, resume, priority or checkpoint.")
    request_id: str = Field(description="Id of the JobControlRequested.")
    requester: str = Field(default="unknown", description="Who requested it.")
    reason: str = Field(default="", description="Why it was requested.")
    priority: int | None = Field(default=None, description="The job's new priority; for `priority` only.")
    attempts: tuple[AttemptsSoFar, ...] = Field(
        default=(),
        description="For `retry`: how often each step was tried so far; these attempts no longer count as retries. For "
        "`checkpoint`: the running attempts, which are asked for one.",
    )


class JobControlRefused(EventData):
    """The orchestrator refuses a JobControlRequested; it changed nothing."""

    job_id: JobId
    control: str = Field(description="What was requested.")
    request_id: str = Field(description="Id of the JobControlRequested.")
    reasons: tuple[Reason, ...] = Field(description="Why, and what to do.")
