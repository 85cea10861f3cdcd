"""Defines the events that outsiders write: the request of a job, and the requests to cancel or control it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from schemas.base import EventData, Moment, Name, Strict, Whole
from schemas.reasons import UNION_TAG, Reason, shortened
from schemas.recipes.comparing import ComparisonSettings
from schemas.recipes.compression import CompressionMethod, CompressionSettings
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.distill import DistillSettings
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.feedback import FeedbackSettings
from schemas.recipes.grpo import GrpoSettings
from schemas.recipes.kto import KtoSettings
from schemas.recipes.model import ChatTemplate
from schemas.recipes.reward import RewardModelSettings
from schemas.recipes.rloo import RlooSettings
from schemas.recipes.sampling import SamplingSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import EXECUTOR_OF

PRESETS = ("sft", "rlaif", "dpo", "kto", "reward", "grpo", "rloo", "distill", "import")
IMPORT = "import"
"""The preset, and the kind of step, that registers what was made elsewhere."""
NO_DATASET = "none"
"""Reference of the data set of a job that reads none."""


def _shortened_to(limit: int) -> BeforeValidator:
    """Cut text that is only passed on instead of refusing it, because the sender of a refused cancellation would get no
    answer."""
    return BeforeValidator(lambda value: shortened(value, limit) if isinstance(value, str) else value)


class PipelineStep(Strict):
    """One step of an explicit pipeline. Its settings come from the request's sections for its purpose."""

    name: Name = Field(description="Name of the step, unique within the pipeline.")
    kind: str = Field(description="prepare, train, sample, label, evaluate, compress, import, score, compare or register.")
    method: Literal["sft", "dpo"] | None = Field(default=None, description="Training method; for kind train only.")
    algorithm: Literal["kto", "reward", "grpo", "rloo", "distill"] | None = Field(
        default=None, description="Training method that is none of `method`, in its place; for kind train only."
    )
    compression: CompressionMethod | None = Field(
        default=None, description="Method of the compression, in place of `compression.method`; for kind compress only."
    )
    needs: tuple[Name, ...] = Field(
        default=(), description="Steps that must be completed before, in addition to those bound as inputs."
    )
    inputs: dict[str, str] = Field(default_factory=dict, description="Bindings of inputs: input name to `step.output`.")

    @model_validator(mode="after")
    def _kind_is_known(self) -> Self:
        if self.kind not in EXECUTOR_OF:
            raise ValueError(f"unknown kind {self.kind!r}; use one of {', '.join(EXECUTOR_OF)}")
        if self.method and self.algorithm:
            raise ValueError("`method` and `algorithm` exclude each other")
        if (self.kind == "train") != (self.trained_by is not None):
            raise ValueError(
                "`method` (sft or dpo) or `algorithm` (kto, reward, grpo, rloo or distill) belongs to steps of kind train, and to "
                "them only"
            )
        if self.compression and self.kind != "compress":
            raise ValueError("`compression` belongs to steps of kind compress, and to them only")
        return self

    @property
    def trained_by(self) -> str | None:
        """The training method of a step of kind train."""
        return self.method or self.algorithm


PRIORITY_AT_MOST = 100
_PRESET, _STEPS = f"{UNION_TAG}preset", f"{UNION_TAG}steps"


def _pipeline_form(value: object) -> str | None:
    if isinstance(value, str):
        return _PRESET
    return _STEPS if isinstance(value, list | tuple) else None


Pipeline = Annotated[
    Annotated[str, Tag(_PRESET)] | Annotated[tuple[PipelineStep, ...], Tag(_STEPS)],
    Discriminator(
        _pipeline_form,
        custom_error_type="pipeline_form",
        custom_error_message=f"a pipeline is a name ({', '.join(PRESETS)}) or a list of steps",
    ),
]


class JobRequest(Strict):
    """The validated content of a JobRequested, with defaults."""

    job_id: Name = Field(
        description="Id of the job, chosen by the requester; the same id with the same content is the same job."
    )
    requester: str = Field(
        min_length=1, max_length=256, description="Who requests the job, for example the product's name."
    )
    pipeline: Pipeline = Field(
        default="sft",
        description="A preset, `sft`, `rlaif`, `dpo` (on pairs of the data set), `kto` (on its judged answers), `reward` (a "
        "reward model from its pairs), `grpo` and `rloo` (on sampled answers and their rewards), `distill` (from a teacher), `import` "
        "(of what was made elsewhere), or a list of steps.",
    )
    base_model: str = Field(
        min_length=1,
        max_length=2048,
        description="Local folder, `s3://` URI or hub id; or a registered version, `name@version` or `name@alias`. Training continues "
        "from a version that is an adapter; one that is a whole model is the base model. Of an import it is the base model of the adapter, or "
        "the same as `import_from`.",
    )
    import_from: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="Local folder, `s3://` URI or hub id of the adapter or whole model that a step of kind import reads; null without one.",
    )
    chat_template: ChatTemplate | None = Field(
        default=None,
        description="Chat template, in Jinja, in place of the base model's, or for a base model without one. Rows are learnt, "
        "sampled and evaluated with it, and it is saved with the adapter.",
    )
    dataset: DatasetSettings = Field(
        description="The data set. An import without one is not evaluated; its reference is `none`, which `pipeline: import` also means by "
        "leaving the field out."
    )
    training: TrainingSettings = TrainingSettings()
    sampling: SamplingSettings = SamplingSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    preference: PreferenceSettings = PreferenceSettings()
    kto: KtoSettings = KtoSettings()
    grpo: GrpoSettings = GrpoSettings()
    rloo: RlooSettings = RlooSettings()
    distill: DistillSettings = DistillSettings()
    compression: CompressionSettings = CompressionSettings()
    reward: RewardModelSettings = RewardModelSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    comparison: ComparisonSettings | None = Field(
        default=None, description="The answers that a step of kind compare judges; null without one."
    )
    register_as: Name = Field(description="Name of the model that gets the new version.")
    register_version: str | None = Field(
        default=None,
        max_length=32,
        description="Number of the new version, such as `1.2.0`, above the highest of its line, which are the versions with the same "
        "MAJOR number; null: the registry numbers it.",
    )
    alias: Name | None = Field(default="candidate", description="Alias that moves to the new version; null for none.")
    priority: Whole = Field(
        default=0,
        ge=-PRIORITY_AT_MOST,
        le=PRIORITY_AT_MOST,
        description="Priority; a job with a higher number runs earlier.",
    )
    max_duration: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        le=315_360_000,
        description="The most seconds from the job's acceptance, or from its latest retry, to its end. Then its steps write "
        "checkpoints and stop, and the job fails; a retry continues it.",
    )
    budget: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        le=1_000_000_000_000,
        description="The most that the job, or what follows its latest retry, may cost, in the currency of the operator's prices. "
        "Then its steps write checkpoints and stop, and the job fails; a retry continues it. Null: no limit.",
    )
    deadline: Moment | None = Field(default=None, description="RFC 3339 time by which the job must have ended.")

    @model_validator(mode="before")
    @classmethod
    def _an_import_may_read_no_data(cls, given: object) -> object:
        """Fill in the reference that says so: a released field stays required, so that every reader finds one."""
        if isinstance(given, dict) and given.get("pipeline") == IMPORT and given.get("dataset") is None:
            return {**given, "dataset": {"reference": NO_DATASET}}
        return given

    @field_validator("pipeline")
    @classmethod
    def _is_a_preset_or_steps(cls, pipeline: str | tuple[PipelineStep, ...]) -> str | tuple[PipelineStep, ...]:
        if isinstance(pipeline, str) and pipeline not in PRESETS:
            raise ValueError(f"unknown pipeline {pipeline!r}; use {', '.join(PRESETS)}, or a list of steps")
        if not pipeline:
            raise ValueError("the pipeline has no steps; use a preset or list at least one step")
        return pipeline


class JobRequested(EventData):
    """Somebody requests a model. `request` is kept as sent, so that a faulty one can be rejected with reasons.

    On the wire the fields of JobRequest are the event's data itself.
    """

    job_id: str = Field(description="The job's id; also the record's key.")
    request: dict[str, Any] = Field(description="The event's data as sent, not yet validated.")
    faults: tuple[Reason, ...] = Field(default=(), description="Faults of parts that could not be stored.")


class JobCancelRequested(EventData):
    """Somebody requests that a job is cancelled."""

    job_id: str = Field(min_length=1, max_length=256, description="The job's id; also the record's key.")
    requester: Annotated[str, _shortened_to(256)] = Field(default="unknown", description="Who requests it.")
    reason: Annotated[str, _shortened_to(2000)] = Field(
        default="", max_length=2000, description="Why the job is cancelled."
    )


CONTROLS = ("retry", "pause", "resume", "priority", "checkpoint")
"""What a JobControlRequested can ask for."""


class JobControlRequested(EventData):
    """Somebody requests a change of a job that was requested before. The orchestrator answers with JobControlled or JobControlRefused.

    Of several requests of one kind that it reads together, the last on the log counts; pause and resume are of one kind.
    """

    job_id: str = Field(min_length=1, max_length=256, description="The job's id; also the record's key.")
    control: Annotated[str, _shortened_to(32)] = Field(
        description="retry: continue a failed job from its failed step; pause: write checkpoints and stop; resume: continue a "
        "paused job; priority: change its priority; checkpoint: write checkpoints now and go on."
    )
    priority: int | None = Field(default=None, description="The new priority, from -100 to 100; for `priority` only.")
    requester: Annotated[str, _shortened_to(256)] = Field(default="unknown", description="Who requests it.")
    reason: Annotated[str, _shortened_to(2000)] = Field(default="", max_length=2000, description="Why it is requested.")
