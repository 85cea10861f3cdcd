"""Defines how HTTP shows and takes deployments, documented for /docs."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from schemas.base import Frozen, Storable, Strict, Whole
from schemas.deployments import (
    BAKE_SECONDS,
    CANARY,
    DEADLINE_SECONDS,
    EMPTY_RATE,
    ERROR_RATE,
    JUDGE_SECONDS,
    LEAST_PAIRS,
    LEAST_REQUESTS,
    MOST_PAIRS,
    SHARE,
    SLOWER_BY,
    STEP_SECONDS,
    STEPS,
    WIN_RATE,
    DeploymentRequested,
    PairsJudged,
    Rollout,
)
from schemas.recipes.feedback import ADD_RULES, NO_RULE, FeedbackSettings, lacks_rules
from services.registry.deploying.conditions import Condition, Conditions, SlotView
from services.registry.domain.deployments.judged import JudgementState, pairs_judged
from services.registry.domain.deployments.state import DeploymentState, Told, Trouble
from services.registry.queries import MODEL_ID

_DAY = 86_400
_Share = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]
_SLOTS = TypeAdapter(tuple[SlotView, ...])
_SAID = TypeAdapter(tuple[JudgementState, ...])

By = Annotated[Storable, Field(min_length=1, max_length=256, description="Who asks for it.")]
Why = Annotated[Storable, Field(max_length=2000, description="Why.")]


class ShadowAsked(Strict):
    """How answers of a canary are compared with those of the version before. Texts of callers are stored for it, for a while."""

    share: Annotated[float, Field(gt=0, le=1, strict=True, allow_inf_nan=False)] = Field(
        default=SHARE, description="The share of the requests answered by the version before that the canary gets, too."
    )
    most_pairs: Whole = Field(
        default=MOST_PAIRS, ge=1, le=1000, description="The most pairs of answers that are stored in a step."
    )
    least_pairs: Whole = Field(
        default=LEAST_PAIRS,
        ge=1,
        le=1000,
        description="The fewest decided pairs by which it is judged; about so many are sent to the judge at a time.",
    )
    win_rate: _Share = Field(
        default=WIN_RATE,
        description="The least share of the decided pairs in which the canary's answer has to be the better one.",
    )
    judge_seconds: Annotated[float, Field(ge=1, le=3600, strict=True, allow_inf_nan=False)] = Field(
        default=JUDGE_SECONDS, description="For how long a judge may take for them."
    )
    feedback: FeedbackSettings = Field(default=FeedbackSettings(), description="The judge and its rubric, as in a job.")

    @model_validator(mode="after")
    def _a_judge_can_judge(self) -> Self:
        if lacks_rules(self.feedback.judge, self.feedback.rubric):
            raise ValueError(f"{NO_RULE}; {ADD_RULES}")
        return self


class RolloutAsked(Strict):
    """How a deployment comes to the version."""

    deadline_seconds: Annotated[float, Field(ge=1, le=_DAY, strict=True, allow_inf_nan=False)] = Field(
        default=DEADLINE_SECONDS, description="For how long the version may not be ready before it is given up."
    )
    bake_seconds: Annotated[float, Field(ge=0, le=_DAY, strict=True, allow_inf_nan=False)] = Field(
        default=BAKE_SECONDS, description="For how long after the switch the version before is kept warm."
    )

    strategy: Literal["direct", "canary"] = Field(
        default="direct",
        description="direct: the version serves all callers when it is ready; canary: a growing share of them first.",
    )
    steps: tuple[Annotated[float, Field(gt=0, le=100, strict=True, allow_inf_nan=False)], ...] = Field(
        default=STEPS,
        max_length=10,
        description="canary: the share of the callers at each step, in percent; 100 is added as the last.",
    )
    step_seconds: Annotated[float, Field(ge=0, le=_DAY, strict=True, allow_inf_nan=False)] = Field(
        default=STEP_SECONDS,
        description="canary: the shortest time of a step. A step without a verdict within deadline_seconds is given up.",
    )
    least_requests: Whole = Field(
        default=LEAST_REQUESTS, ge=1, le=10**6, description="canary: the fewest requests of a step by which it is judged."
    )
    error_rate: _Share = Field(
        default=ERROR_RATE,
        description="canary: the largest share of requests that may fail, or that of the version before.",
    )
    empty_rate: _Share = Field(
        default=EMPTY_RATE,
        description="canary: the largest share of answers that may be empty, or that of the version before.",
    )
    slower_by: Annotated[float, Field(ge=1, le=1000, strict=True, allow_inf_nan=False)] = Field(
        default=SLOWER_BY,
        description="canary: by which factor the 95th percentile of the latency may exceed that of the version before.",
    )

    shadow: ShadowAsked | None = Field(
        default=None,
        description="canary: have a judge compare its answers with those of the version before, on the same requests; null: no text of "
        "a caller is stored.",
    )

    @model_validator(mode="after")
    def _both_versions_answer(self) -> Self:
        if self.shadow is not None and (self.strategy != CANARY or min(self.steps, default=100) >= 100):
            raise ValueError("`shadow` needs the strategy canary, and a step that leaves callers to the version before")
        return self

    @property
    def rollout(self) -> Rollout:
        """As events have it."""
        return Rollout.model_validate({**self.model_dump(), "steps": tuple(sorted({*self.steps, 100.0}))})


class DeploymentAsked(Strict):
    """The version that a deployment is to serve from now on; the deployment is made if there is none of this name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")] = Field(
        description="Name of the deployment, under which callers ask it; it does not begin with a dot."
    )
    model: Annotated[str, Field(pattern=MODEL_ID)] = Field(
        description="`name@version`, `name@alias`, or `name` for its highest version. The version is pinned, whatever the alias names later."
    )
    follow: bool = Field(default=False, description="Whether every later move of the alias is rolled out, too.")
    driver: Literal["local", "vllm", "kserve"] | None = Field(
        default=None,
        description="What serves it; null: the driver that the operator has set for deployments that name none.",
    )
    rollout: RolloutAsked = RolloutAsked()
    by: By = "unknown"
    reason: Why = ""


class ChangeAsked(Strict):
    """Who changes a deployment, and why."""

    by: By = "unknown"
    reason: Annotated[Why, Field(min_length=1)]


class RetirementAsked(Frozen):
    """The query that retires a deployment."""

    by: By = "unknown"
    reason: Why = ""


class ServedView(Frozen):
    """A version and the generation that wants it."""

    generation: int
    version: str
    sha256: str = Field(description="Digest of its artifact.")
    alias: str | None = Field(description="The alias that named it; null if none was asked for.")
    by: str
    reason: str

    @classmethod
    def of(cls, wish: DeploymentRequested | None) -> "ServedView | None":
        """Return the view of a wish, if there is one."""
        if wish is None:
            return None
        return cls(
            generation=wish.generation, version=wish.version, sha256=wish.artifact.sha256, alias=wish.alias, by=wish.by,
            reason=wish.reason,
        )  # fmt: skip


class DeploymentView(Frozen):
    """A deployment: what it serves, what it is about to serve, and how it is."""

    name: str
    model: str = Field(description="Name of the model whose versions it serves.")
    version: str | None = Field(description="The version that answers callers; null if none does yet.")
    generation: int = Field(description="The latest wish, which is the ETag.")
    follow: bool = Field(description="Whether it follows the alias of the latest wish.")
    driver: str = Field(description="What serves the version of the latest wish: local, vllm or kserve.")
    rollout: Rollout
    active: ServedView | None = Field(description="What answers callers.")
    target: ServedView | None = Field(description="What is being rolled out; null: nothing is.")
    percent: float | None = Field(description="The share of the callers that a canary has; null: none is under way.")
    warm: ServedView | None = Field(description="What answered before and can be returned to at once.")
    given_up: Trouble | None = Field(description="Why the latest wish was given up; null if it was not.")
    judged: PairsJudged | None = Field(
        description="What a judge said so far about the answers of what is rolled out; null: nothing."
    )
    conditions: tuple[Condition, ...]
    slots: tuple[SlotView, ...] = Field(description="What was observed of its slots.")
    retired_at: datetime | None
    sequence: int = Field(description="Number of its latest event.")
    history: tuple[Told, ...] = Field(description="Its latest events, the newest first; empty in a list.")

    @classmethod
    def of(cls, row: Any) -> "DeploymentView":
        """Return the view of a row of `statements.SHOWN`."""
        name, text, sequence, observed, now, said = row
        state, slots = DeploymentState.stored(text), _SLOTS.validate_json(observed)
        wish, now = state.wish, now.astimezone(UTC)
        assert wish is not None
        return cls(
            name=name,
            model=wish.model,
            version=state.active and state.active.version,
            generation=wish.generation,
            follow=wish.follow,
            driver=wish.driver,
            rollout=wish.rollout,
            active=ServedView.of(state.active),
            target=ServedView.of(state.target),
            percent=state.percent,
            warm=ServedView.of(state.returns_to(now)),
            given_up=state.given_up,
            judged=pairs_judged(_SAID.validate_json(said)),
            conditions=Conditions(state=state, slots={slot.slot: slot for slot in slots}, now=now).all(),
            slots=slots,
            retired_at=state.retired_at,
            sequence=sequence,
            history=state.history[::-1],
        )


class DeploymentList(Frozen):
    """All deployments that somebody wants."""

    items: tuple[DeploymentView, ...]


class ManifestList(Frozen):
    """Objects of Kubernetes."""

    items: tuple[dict[str, Any], ...]
