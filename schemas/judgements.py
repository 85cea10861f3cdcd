"""Defines what another service asks the judges of the feedback service over HTTP, and what they answer."""

from pydantic import Field

from schemas.base import Frozen, Real, Strict
from schemas.lines import Message
from schemas.recipes.feedback import JudgeSettings, Rubric

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


class JudgementRequest(Strict):
    """Texts for one judge. Without texts the judge is made ready, and says who it is."""

    judge: JudgeSettings = JudgeSettings()
    rubric: Rubric = Rubric()
    base_model: str = Field(
        min_length=1, max_length=2048, description="Reference of the base model, which is the local judge's default."
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
