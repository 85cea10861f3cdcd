"""Defines the messages between the service and the process of a judge, one JSON object per line."""

from pathlib import Path

from pydantic import Field

from schemas.base import Frozen
from schemas.judgements import JudgedText, RegisteredJudge
from schemas.reasons import Reason
from schemas.recipes.feedback import FeedbackSettings, JudgeSettings, Rubric
from services.chassis.storage.sources.allowed import AllowedSources

LINE_LIMIT = 16 * 1024 * 1024


class JudgeTask(Frozen):
    """The first line: which judge the process is."""

    judge: JudgeSettings
    rubric: Rubric
    base_model: str
    version: RegisteredJudge | None = Field(default=None, description="The registered reward model that judges.")
    artifacts_uri: str = Field(description="The store of its files.")
    cache: Path = Field(description="Folder for files that can be downloaded again.")
    allowed: AllowedSources = Field(description="Sources that the judge's settings may name.")
    memory_failures: int = 0
    checkpoints: None = Field(default=None, description="Nothing is kept: the caller keeps the scores.")
    own_checkpoints: None = None

    @property
    def feedback(self) -> FeedbackSettings:
        """The settings as a step of kind score has them."""
        return FeedbackSettings(judge=self.judge, rubric=self.rubric)


class Texts(Frozen):
    """Each further line: texts to be judged."""

    texts: tuple[JudgedText, ...]


class Ready(Frozen):
    """The answer to the first line; with reasons the judge cannot be used, and the process ends."""

    judge: str = ""
    facts: dict[str, str] = Field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()


class Scores(Frozen):
    """The answer to each further line: scores, or the reasons of a fault of the request, or why the judge fails at present."""

    scores: tuple[float | None, ...] = ()
    reasons: tuple[Reason, ...] = ()
    failed: str | None = None
