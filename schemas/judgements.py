"""Defines what another service asks the judges of the feedback service over HTTP, and what they answer."""

from collections.abc import Mapping

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen, Real, Strict
from schemas.jobs import StepResult
from schemas.lines import Message
from schemas.recipes.feedback import JudgeSettings, Rubric
from schemas.results import ADAPTER, JUDGE_REFERENCE, JUDGE_VERSION, MODEL

JUDGEMENTS = "/judgements"
"""The path of the route, below the API's prefix."""
TEXTS_AT_MOST = 64
REQUEST_BYTES = 4 * 1024 * 1024
"""The most texts, and the most bytes, of one request."""


class JudgedText(Strict):
    """A text to be judged, with the prompt that it answers."""

    messages: tuple[Message, ...] = Field(description="The chat that the text answers.")
    columns: dict[str, str] = Field(default_factory=dict, description="Columns of the row, which rules may read.")
    text: str = Field(min_length=1, description="The text.")


class RegisteredJudge(Strict):
    """A reward model in the registry, as the registry found it when a job began."""

    id: str = Field(min_length=1, max_length=512, description="The version, `name@version`.")
    adapter: ArtifactRef = Field(description="Its artifact.")
    model: ArtifactRef | None = Field(
        default=None, description="Its base model, if that is an artifact too; null: `training.json` names the base model."
    )


def registered_judge(judge: JudgeSettings, results: Mapping[str, StepResult]) -> RegisteredJudge | None:
    """Return the version that the judge's settings name, as the result of a step tells; None if they name none."""
    if judge.reward_model is None:
        return None
    found = (one for one in results.values() if one.facts.get(JUDGE_REFERENCE) == judge.reward_model)
    result = next(found, None)
    if result is None:
        return None
    made = result.outputs
    return RegisteredJudge(id=result.facts[JUDGE_VERSION], adapter=made[ADAPTER], model=made.get(MODEL))


class JudgementRequest(Strict):
    """Texts for one judge. Without texts the judge is made ready, and says who it is."""

    judge: JudgeSettings = JudgeSettings()
    rubric: Rubric = Rubric()
    base_model: str = Field(
        min_length=1, max_length=2048, description="Reference of the base model, which is the local judge's default."
    )
    registered: RegisteredJudge | None = Field(
        default=None, description="The version that `judge.reward_model` names; null if it names none."
    )
    texts: tuple[JudgedText, ...] = Field(default=(), max_length=TEXTS_AT_MOST, description="The texts to be judged.")
    timeout_seconds: Real = Field(
        default=120.0, gt=0, le=3600, description="The longest time for all texts; a judge that needs longer is ended."
    )


class Judgements(Frozen):
    """The scores of the texts of one request."""

    judge: str = Field(description="Kind and model of the judge.")
    facts: dict[str, str] = Field(description="Facts about the judge, as the results of label and score steps have them.")
    scores: tuple[float | None, ...] = Field(
        description="A number for each text, in order; higher is better. Null: the judge gave none."
    )
