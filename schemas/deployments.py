"""Defines the registry's events about deployments, which lie beside those of the model, each deployment in one order of its own."""

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import EventData, Frozen
from schemas.recipes.feedback import FeedbackSettings

DEADLINE_SECONDS, BAKE_SECONDS = 600.0, 60.0
"""How long a version may take to be ready, and how long the one before it is kept warm, unless a deployment says otherwise."""
DIRECT, CANARY = "direct", "canary"
LOCAL, VLLM, KSERVE = DRIVERS = ("local", "vllm", "kserve")
"""What serves versions: processes of the registry's machine, vLLM's servers, or KServe on Kubernetes."""
STEPS = (1.0, 10.0, 50.0, 100.0)
STEP_SECONDS, LEAST_REQUESTS, ERROR_RATE, EMPTY_RATE, SLOWER_BY = 60.0, 20, 0.02, 0.05, 1.5
SHARE, LEAST_PAIRS, MOST_PAIRS, WIN_RATE, JUDGE_SECONDS = 0.1, 20, 200, 0.4, 600.0


class Shadow(Frozen):
    """How answers of a canary are compared with those of the version before, on the same requests."""

    share: float = Field(
        default=SHARE, description="The share of the requests answered by the version before that the canary gets, too."
    )
    most_pairs: int = Field(default=MOST_PAIRS, description="The most pairs of answers that are stored in a step.")
    least_pairs: int = Field(
        default=LEAST_PAIRS,
        description="The fewest decided pairs by which it is judged; so many are sent to the judge at a time.",
    )
    win_rate: float = Field(
        default=WIN_RATE, description="The least share of the decided pairs in which the canary's answer has to be better."
    )
    judge_seconds: float = Field(default=JUDGE_SECONDS, description="For how long a judge may take for them.")
    feedback: FeedbackSettings = Field(default=FeedbackSettings(), description="The judge and its rubric, as in a job.")


class Rollout(Frozen):
    """How a deployment comes to its next version."""

    deadline_seconds: float = Field(
        default=DEADLINE_SECONDS, description="For how long the version may not be ready before it is given up."
    )
    bake_seconds: float = Field(
        default=BAKE_SECONDS,
        description="For how long after the switch the version before is kept warm, so that the deployment can return to it at once.",
    )
    strategy: str = Field(
        default=DIRECT,
        description="direct: the version serves all callers when it is ready; canary: a growing share of them first.",
    )
    steps: tuple[float, ...] = Field(
        default=STEPS, description="canary: the share of the callers at each step, in percent; the last is 100."
    )
    step_seconds: float = Field(default=STEP_SECONDS, description="canary: the shortest time of a step.")
    least_requests: int = Field(
        default=LEAST_REQUESTS, description="canary: the fewest requests of a step by which it is judged."
    )
    error_rate: float = Field(
        default=ERROR_RATE,
        description="canary: the largest share of requests that may fail, or that of the version before.",
    )
    empty_rate: float = Field(
        default=EMPTY_RATE,
        description="canary: the largest share of answers that may be empty, or that of the version before.",
    )
    slower_by: float = Field(
        default=SLOWER_BY,
        description="canary: by which factor the 95th percentile of the latency may exceed that of the version before.",
    )
    shadow: Shadow | None = Field(
        default=None,
        description="canary: how its answers are judged beside those of the version before; null: they are not.",
    )


class PairsJudged(Frozen):
    """What a judge said about answers of two versions to the same requests, from the beginning of a rollout."""

    wins: int = Field(description="Pairs in which the answer of the version that is rolled out is better.")
    losses: int = Field(description="Pairs in which that of the version before is better.")
    ties: int = Field(description="Pairs of which neither is better; they decide nothing.")
    unjudged: int = Field(description="Pairs without a usable judgement.")
    low: float | None = Field(
        description="Lower end of the 95 % interval of the share of the wins; null without any decided pair."
    )
    high: float | None = Field(description="Upper end.")
    judge: str = Field(description="Kind and model of the judge.")
    judge_model_sha256: str | None = Field(description="Digest of its model; null if it is not known.")
    rubric_sha256: str | None = Field(description="Digest of its rubric.")
    pairs: tuple[str, ...] = Field(description="Digests of the artifacts with the pairs, which retention removes.")


class Check(Frozen):
    """What one measurement of a step of a canary said."""

    name: str = Field(description="error_rate, empty_rate, p95_seconds or judge_score.")
    verdict: str = Field(description="passed, failed, or inconclusive: the evidence does not suffice.")
    value: float | None = Field(description="Of the version that is rolled out; null: not known.")
    limit: float | None = Field(description="What it may be at most, judge_score: at least; null: not known.")
    requests: int = Field(description="How many requests it was measured on; judge_score: how many decided pairs.")
    judged: PairsJudged | None = Field(default=None, description="judge_score: what the judge said; null for other checks.")


class Analysis(Frozen):
    """What a step of a canary measured."""

    percent: float = Field(description="The share of the callers, in percent.")
    seconds: float = Field(description="How long the step took.")
    verdict: str = Field(description="failed if one of the checks failed, else inconclusive if one was, else passed.")
    checks: tuple[Check, ...] = Field(description="What was measured, and what it said.")


class DeploymentChanged(EventData):
    """What all events about a deployment tell."""

    deployment: str = Field(description="Name of the deployment; its events are numbered by it.")
    model: str = Field(description="Name of the model; also the record's key. A deployment serves versions of one model.")
    generation: int = Field(
        description="Which wish of the deployment it is about, from 1; each DeploymentRequested is one."
    )
    version: str = Field(description="The version of that generation.")


class DeploymentRequested(DeploymentChanged):
    """Somebody wants a deployment to serve a version, which is pinned: whatever an alias names later, this one is meant."""

    artifact: ArtifactRef = Field(description="The artifact of the version, with its digest.")
    kind: str = Field(description="What the artifact is: `adapter` or `model`.")
    base_model: str = Field(description="Reference of the base model.")
    base_model_sha256: str | None = Field(description="Digest of the base model's files; null if it is not known.")
    predictions: ArtifactRef | None = Field(
        default=None,
        description="The recorded answers of the version's evaluation, some of which a driver asks for again; null for none.",
    )
    alias: str | None = Field(default=None, description="The alias that named the version; null if none was asked for.")
    follow: bool = Field(
        default=False, description="Whether each move of the alias becomes the next generation of the deployment."
    )
    driver: str = Field(
        default=LOCAL,
        description="What serves it: local, processes of the registry's machine; vllm, the vLLM servers that the operator runs; kserve, KServe.",
    )
    rollout: Rollout = Field(default=Rollout(), description="How the deployment comes to the version.")
    by: str = Field(description="Who wants it; `model@alias` if the alias moved that is followed.")
    reason: str = Field(description="Why; may be empty.")


class DeploymentAdvanced(DeploymentChanged):
    """A canary got a larger share of the callers."""

    percent: float = Field(description="Its share from now on, in percent.")
    analysis: Analysis | None = Field(default=None, description="What the step before measured; null for the first step.")
    by: str | None = Field(default=None, description="Who advanced it whatever was measured; null: the registry itself.")
    reason: str = Field(default="", description="Why; may be empty.")


class DeploymentShadowed(DeploymentChanged):
    """Answers of a canary and of the version before to the same requests were stored, and a job is requested that judges them."""

    judgement: str = Field(description="Id of the job that judges them.")
    pairs: ArtifactRef = Field(description="The pairs; the first answer of each is that of the version before.")
    count: int = Field(description="How many there are.")
    percent: float = Field(description="The share of the callers that the canary had, in percent.")
    active_generation: int = Field(description="The generation of the version before.")
    active_version: str = Field(description="The version before.")


class DeploymentReady(DeploymentChanged):
    """A version serves the deployment's callers from now on: for the first time, or again after DeploymentDegraded."""

    sha256: str = Field(description="Digest of the artifact that is served.")
    previous: str | None = Field(default=None, description="The version that served them before; null for none.")
    analysis: Analysis | None = Field(
        default=None, description="What the last step of a canary measured; null without one."
    )


class DeploymentDegraded(DeploymentChanged):
    """A version that should serve the deployment's callers does not."""

    reason: str = Field(description="One word, such as Failed, Missing, WrongModel or ProgressDeadlineExceeded.")
    message: str = Field(description="What was observed.")


class DeploymentRolledBack(DeploymentChanged):
    """A generation was given up; the deployment stays with, or returns to, the version before. Nothing repeats it by itself."""

    to_generation: int = Field(description="The generation that serves the callers.")
    to_version: str = Field(description="Its version.")
    reason: str = Field(description="One word, such as ProgressDeadlineExceeded or Aborted.")
    message: str = Field(description="Why, with what was observed.")
    by: str | None = Field(default=None, description="Who gave it up; null: the registry itself.")
    analysis: Analysis | None = Field(default=None, description="What the step of a canary measured; null without one.")


class DeploymentRetired(DeploymentChanged):
    """A deployment serves nobody any more. Its name can be used again, for the same model."""

    by: str = Field(description="Who retired it.")
    reason: str = Field(description="Why; may be empty.")
