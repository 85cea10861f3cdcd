"""Defines steps: their kinds, the services that execute them, typed settings, inputs and outputs, and the retry policy."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen, Name, Strict, Whole
from schemas.recipes.comparing import ComparisonSettings
from schemas.recipes.compression import CompressionSettings
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.distill import DistillSettings
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.feedback import FeedbackSettings
from schemas.recipes.grpo import GrpoSettings
from schemas.recipes.harness import HarnessSettings
from schemas.recipes.kto import KtoSettings
from schemas.recipes.methods import MethodSettings
from schemas.recipes.model import AssistantTurns, ChatTemplate, Precision
from schemas.recipes.reward import RewardModelSettings
from schemas.recipes.rloo import RlooSettings
from schemas.recipes.sampling import SamplingSettings
from schemas.recipes.sft import TrainingSettings
from schemas.results import ADAPTER, CANDIDATES, COMPARISONS, DATASET, MODEL, PREDICTIONS, PREFERENCES, SCORES
from schemas.usage import Prices

SERVICES = ("orchestrator", "trainer", "feedback", "registry")

EXECUTOR_OF: Mapping[str, str] = {
    "prepare": "trainer",
    "train": "trainer",
    "sample": "trainer",
    "evaluate": "trainer",
    "compress": "trainer",
    "import": "trainer",
    "label": "feedback",
    "score": "feedback",
    "compare": "feedback",
    "register": "registry",
    "resolve": "registry",
}
"""The service that executes each kind of step."""

INPUTS_OF: Mapping[str, Mapping[str, bool]] = {
    "prepare": {},
    "train": {DATASET: False, PREFERENCES: False, ADAPTER: False, MODEL: False},
    "sample": {DATASET: True, ADAPTER: False, MODEL: False},
    "evaluate": {DATASET: True, ADAPTER: False, MODEL: False},
    "compress": {DATASET: False, ADAPTER: False, MODEL: False},
    "import": {ADAPTER: False, MODEL: False},
    "label": {CANDIDATES: True},
    "score": {PREDICTIONS: True},
    "compare": {},
    "register": {ADAPTER: False, MODEL: False},
    "resolve": {},
}
"""Input names per kind; True where the input is required. `train` needs `dataset` (sft, grpo, rloo, distill) or `preferences` (dpo,
kto, reward), `register` either `adapter` or `model`, `compress` what its method reads. `import` gets what its base model consists of if
that is a registered version. A bound `model` takes the place of the
base model; an adapter beside it was trained on it."""

OUTPUTS_OF: Mapping[str, tuple[str, ...]] = {
    "prepare": (DATASET, PREFERENCES),
    "train": (ADAPTER, MODEL),
    "sample": (CANDIDATES,),
    "evaluate": (PREDICTIONS,),
    "compress": (MODEL,),
    "import": (ADAPTER, MODEL),
    "label": (PREFERENCES,),
    "score": (SCORES,),
    "compare": (COMPARISONS,),
    "register": (),
    "resolve": (ADAPTER, MODEL, DATASET, PREFERENCES),
}
"""Output names per kind: `StepCompleted.outputs` contains them, and other steps bind them as `step.output`. `train` makes a `model` if
it trains all weights, else an `adapter`; `resolve` has what its version or its data set consists of, and `import` what it read, an adapter
with the model that it belongs to if that is a registered one."""


class AnswersAtOnce(Strict):
    """How much steps of kind sample and evaluate generate at once, at the most."""

    prompts: int = Field(ge=1, description="Prompts that one decoder answers together.")
    answers: int = Field(ge=1, description="Answers to each of them.")
    tokens: int = Field(ge=1, description="Tokens of each answer.")
    precision: Precision = Field(default="auto", description="The largest that one of these steps computes with.")


class JudgedAtOnce(Strict):
    """What the judges of steps of kind label and score read, at the most."""

    feedback: FeedbackSettings = Field(description="The request's: judge and rubric.")
    answers: int = Field(ge=1, description="Answers that are compared in one question.")
    tokens: int = Field(ge=1, description="Tokens of each answer.")


GENERATION = "generation"
"""Name under which `StepResult.needs` tells the need of steps that generate answers."""
COMPRESSION = "compression"
"""Name for steps of kind compress."""
JUDGING = "judging"
"""Name for steps of kind label, score and compare whose judge is a model of this system."""


class PrepareSettings(Strict):
    """Settings of a step that copies the data with its digest, validates every row and checks the base model."""

    kind: Literal["prepare"] = "prepare"
    base_model: str = Field(description="Reference of the base model: local folder, `s3://`, or hub id.")
    chat_template: ChatTemplate | None = Field(default=None, description="The request's; null: the base model's own.")
    dataset: DatasetSettings
    max_length: Whole = Field(
        default=512,
        ge=8,
        description="The most tokens per row; after the cut, a row must still contain a token of the answer.",
    )
    learns: Literal["answers", "pairs", "labels"] = Field(
        default="answers",
        description="What later steps learn from. pairs: `preferences` contains the pairs of the rows; labels: the answers with "
        "their labels, or both answers of each pair. In both cases `dataset` contains the wanted answers.",
    )
    assistant_turns: AssistantTurns = Field(default="all", description="As in `training`: the answers that are counted.")
    compressions: tuple[CompressionSettings, ...] = Field(
        default=(), description="The compressions that follow, so that the base model is checked for them."
    )
    training: TrainingSettings | None = Field(
        default=None, description="The supervised training that follows, so that the base model is checked for it."
    )
    preference: PreferenceSettings | None = Field(
        default=None, description="The training on preferences that follows, so that the base model is checked for it."
    )
    kto: KtoSettings | None = Field(
        default=None, description="The training on labels that follows, so that the base model is checked for it."
    )
    reward: RewardModelSettings | None = Field(
        default=None, description="The training of a reward model that follows, so that the base model is checked for it."
    )
    grpo: GrpoSettings | None = Field(
        default=None, description="The training by grpo that follows, so that prompts and base model are checked for it."
    )
    rloo: RlooSettings | None = Field(
        default=None, description="The training by rloo that follows, so that prompts and base model are checked for it."
    )
    distill: DistillSettings | None = Field(
        default=None, description="The distillation that follows, so that base model and teacher are checked for it."
    )
    answers: AnswersAtOnce | None = Field(
        default=None, description="The most that a later step generates at once, from which its memory is estimated."
    )
    judged: JudgedAtOnce | None = Field(
        default=None, description="What a judge that is a model reads later, from which its memory is estimated."
    )
    harness: HarnessSettings | None = Field(
        default=None,
        description="The tasks of lm-evaluation-harness that evaluations measure, which are stored with the data.",
    )

    @property
    def methods(self) -> Mapping[str, MethodSettings]:
        """The settings of the trainings that follow, by the request's section."""
        return {name: value for name, value in self if isinstance(value, MethodSettings)}


class TrainSettings(Strict):
    """Settings of a step that trains an adapter: from rows (`training`), from preference pairs (`preference`), from judged
    answers (`kto`), from sampled answers (`grpo`, `rloo`) or a teacher (`distill`), or a reward model from preference pairs
    (`reward`); one is set."""

    kind: Literal["train"] = "train"
    base_model: str = Field(description="Reference of the base model.")
    chat_template: ChatTemplate | None = Field(default=None, description="The request's; null: the base model's own.")
    training: TrainingSettings | None = Field(default=None, description="Set for method sft.")
    preference: PreferenceSettings | None = Field(default=None, description="Set for method dpo.")
    kto: KtoSettings | None = Field(default=None, description="Set for method kto.")
    grpo: GrpoSettings | None = Field(default=None, description="Set for method grpo.")
    rloo: RlooSettings | None = Field(default=None, description="Set for method rloo.")
    distill: DistillSettings | None = Field(default=None, description="Set for method distill.")
    reward: RewardModelSettings | None = Field(default=None, description="Set for method reward.")

    @property
    def section(self) -> str | None:
        """Name of the request's section that has the settings of the step's method; None if none is set."""
        return next((name for name, value in self if value is not None and value is self.method_settings), None)

    @property
    def method_settings(self) -> MethodSettings | None:
        """The settings of the step's method; None if none is set."""
        found = (self.training, self.preference, self.kto, self.reward, self.grpo, self.rloo, self.distill)
        return next((settings for settings in found if settings is not None), None)


class SampleSettings(Strict):
    """Settings of a step that samples candidates for feedback."""

    kind: Literal["sample"] = "sample"
    base_model: str = Field(description="Reference of the base model.")
    chat_template: ChatTemplate | None = Field(default=None, description="The request's; null: the base model's own.")
    sampling: SamplingSettings = SamplingSettings()


class LabelSettings(Strict):
    """Settings of a step that turns candidates into preference pairs."""

    kind: Literal["label"] = "label"
    base_model: str = Field(description="Reference of the base model, which is the local judge's default.")
    feedback: FeedbackSettings = FeedbackSettings()


class EvaluateSettings(Strict):
    """Settings of a step that measures a model on the held-out split."""

    kind: Literal["evaluate"] = "evaluate"
    base_model: str = Field(description="Reference of the base model.")
    chat_template: ChatTemplate | None = Field(default=None, description="The request's; null: the base model's own.")
    evaluation: EvaluationSettings = EvaluationSettings()


class CompressSettings(Strict):
    """Settings of a step that makes a model from an adapter or another model."""

    kind: Literal["compress"] = "compress"
    base_model: str = Field(description="Reference of the base model.")
    chat_template: ChatTemplate | None = Field(default=None, description="The request's; null: the base model's own.")
    compression: CompressionSettings = CompressionSettings()


class ImportSettings(Strict):
    """Settings of a step that reads an adapter or a whole model which was made elsewhere, checks it and stores it."""

    kind: Literal["import"] = "import"
    base_model: str = Field(
        description="Reference of the base model that the adapter was trained on; for a whole model that of the model itself."
    )
    source: str = Field(description="Reference of the adapter or model: local folder, `s3://`, or hub id.")


class ScoreSettings(Strict):
    """Settings of a step that computes the mean judge score of a predictions artifact."""

    kind: Literal["score"] = "score"
    base_model: str = Field(description="Reference of the base model, which is the local judge's default.")
    feedback: FeedbackSettings = FeedbackSettings()


class CompareSettings(Strict):
    """Settings of a step that judges which of two answers to each prompt is better."""

    kind: Literal["compare"] = "compare"
    base_model: str = Field(description="Reference of the base model, which is the local judge's default.")
    comparison: ComparisonSettings
    feedback: FeedbackSettings = FeedbackSettings()


class RegisterSettings(Strict):
    """Settings of a step that registers an adapter or a whole model as the next version of a model."""

    kind: Literal["register"] = "register"
    base_model: str = Field(description="Reference of the base model that the adapter or model comes from.")
    model: Name = Field(description="Name of the model that gets the version.")
    alias: Name | None = Field(default="candidate", description="Alias that moves to the new version; null for none.")
    version: str | None = Field(default=None, description="Number of the version; null: the registry numbers it.")


class ResolveSettings(Strict):
    """Settings of a step that finds a registered version, which a job starts from or which judges, or a registered data set. The
    orchestrator adds it to the plan."""

    kind: Literal["resolve"] = "resolve"
    base_model: str = Field(description="Reference of the version, `name@version` or `name@alias`.")
    purpose: Literal["answers", "scores"] = Field(
        default="answers", description="What the version must be for. answers: the job starts from it; scores: it judges."
    )
    field: str = Field(default="base_model", description="The request's field that names it.")
    dataset: str | None = Field(
        default=None,
        description="Reference of the data set that is found in place of a version, `name@digest`; null: a version is found.",
    )


def need_name(settings: "StepSettings") -> str | None:
    """Return the name under which `StepResult.needs` tells the need of a step; None for one that no other step estimates."""
    match settings:
        case TrainSettings():
            return settings.section
        case SampleSettings() | EvaluateSettings():
            return GENERATION
        case CompressSettings():
            return COMPRESSION
        case LabelSettings() | ScoreSettings() | CompareSettings():
            return JUDGING
    return None


StepSettings = Annotated[
    PrepareSettings
    | TrainSettings
    | SampleSettings
    | LabelSettings
    | EvaluateSettings
    | CompressSettings
    | ImportSettings
    | ScoreSettings
    | CompareSettings
    | RegisterSettings
    | ResolveSettings,
    Field(discriminator="kind"),
]


class PlannedStep(Frozen):
    """One node of a job's graph, fully resolved, as JobAccepted records it."""

    name: str = Field(description="Name of the step, unique within the job.")
    kind: str = Field(description="Kind of the step; decides who executes it.")
    needs: tuple[str, ...] = Field(
        default=(), description="Steps that must be completed before, including those of the inputs."
    )
    inputs: dict[str, str] = Field(default_factory=dict, description="Bindings of inputs: input name to `step.output`.")
    settings: StepSettings = Field(description="Everything that the executor needs besides the inputs.")


class Policy(Frozen):
    """Retries and time-outs of steps; retries are counted separately for each cause."""

    infrastructure_retries: int = Field(
        default=3, ge=0, description="Retries after a lost worker, a fault of storage or broker, or a bug."
    )
    memory_retries: int = Field(
        default=2, ge=0, description="Retries after running out of memory; the executor reduces its micro-batch."
    )
    hung_retries: int = Field(
        default=2, ge=0, description="Retries after a process that reported no progress for too long and was ended."
    )
    user_retries: int = Field(default=0, ge=0, description="Retries after a fault of the request or its data.")
    backoff_seconds: float = Field(
        default=5.0, ge=0, description="Wait before the first retry; it doubles with each further one."
    )
    backoff_limit_seconds: float = Field(default=300.0, ge=0, description="Longest wait before a retry.")
    step_timeout_seconds: float = Field(
        default=86_400.0, gt=0, description="Deadline of an attempt, counted from its request."
    )
    cancel_grace_seconds: float = Field(
        default=60.0, ge=0, description="The longest wait for running steps to stop after a cancellation."
    )
    prices: Prices | None = Field(
        default=None, description="The operator's prices, by which the job's budget is kept; null: none are set."
    )
