"""The judge of one reward of a training: who it is, and its scores, which are kept beside the checkpoints.

A score that is missing is None. A training that resumes recalls the scores that it had, so a judge that is not deterministic, or is
paid, is not asked again about the same answer; only what failed is.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.judgements import REQUEST_BYTES, TEXTS_AT_MOST, JudgedText, JudgementRequest, Judgements, RegisteredJudge
from schemas.lines import Message
from schemas.recipes.rewards import RewardFeedback
from schemas.results import JUDGE, JUDGE_MODEL_SHA256, RUBRIC_SHA256
from services.chassis.executor.child import UserFault
from services.chassis.storage.line_cache import CachedLine, LineCache
from services.trainer.judging.service import JudgementsRefused, JudgementsUnavailable, ask

_PROBE = JudgedText(messages=(), text="A text by which the judge shows that it answers.")


class TooFewScores(RuntimeError):
    """Too many answers of a step have no score, or the judge is another one than before; a later attempt may succeed."""


class Identity(NamedTuple):
    """Who a judge is, as far as its scores depend on it."""

    judge: str
    """Kind and model."""
    model_sha256: str | None
    """Digest of the files of a local judge or reward model."""
    rubric_sha256: str

    @property
    def facts(self) -> dict[str, str]:
        """The facts of a step's result."""
        found = {JUDGE: self.judge, JUDGE_MODEL_SHA256: self.model_sha256, RUBRIC_SHA256: self.rubric_sha256}
        return {name: value for name, value in found.items() if value is not None}


class KeptScore(CachedLine):
    """A score that a judge gave."""

    score: float


@dataclass
class JudgedReward:
    """The judge of one reward."""

    place: str
    """The reward's field in the request."""
    settings: RewardFeedback
    base_model: str
    version: RegisteredJudge | None
    """The registered reward model that the settings name."""
    address: str
    tick: Callable[[], None]
    kept: LineCache[KeptScore] | None = None
    identity: Identity = field(init=False)
    failures: dict[str, int] = field(default_factory=dict)
    """Numbers of answers without a score, by the reason."""

    def introduce(self, *, probe: bool = False) -> None:
        """Learn who the judge is; with `probe`, by letting it score a text. Raises UserFault, or TooFewScores if it is away."""
        try:
            self.identity = self._identity(self._ask((_PROBE,) if probe else ()))
        except JudgementsRefused as refused:
            raise self._fault(refused) from refused
        except JudgementsUnavailable as away:
            raise TooFewScores(f"the judge of {self.place} is away: {away}") from away

    def scores(self, texts: Sequence[JudgedText]) -> list[float | None]:
        """Return a score for each text, equal ones for equal texts. Raises TooFewScores if more texts than the settings allow have
        no score: the step that prepared the data has let the judge score a text, so the settings were right."""
        keys = [self._key(text) for text in texts]
        found = {key: entry.score for key in keys if self.kept and (entry := self.kept.recall(key))}
        left = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        asked = dict[str, str]()
        for batch in batches(left):
            given, why = self._given(batch)
            found |= given
            asked |= dict.fromkeys(batch.keys() - given.keys(), why)
            self._check(sum(key in asked for key in keys), len(keys), why)
        for why in (asked[key] for key in keys if key in asked):
            self.failures[why] = self.failures.get(why, 0) + 1
        return [found.get(key) for key in keys]

    def _given(self, batch: Mapping[str, JudgedText]) -> tuple[dict[str, float], str]:
        """Return the scores that the judge gives to a batch, and why the others have none."""
        try:
            answer = self._ask(tuple(batch.values()))
        except (JudgementsRefused, JudgementsUnavailable) as failed:
            return {}, str(failed)
        if self._identity(answer) != self.identity:
            raise TooFewScores(f"the judge of {self.place} is now {answer.judge} {answer.facts}, not {self.identity}")
        given = {key: score for key, score in zip(batch, answer.scores, strict=True) if score is not None}
        for key, score in given.items():
            if self.kept:
                self.kept.keep(KeptScore(key=key, score=score))
        return given, "the judge answered without a score"

    def _check(self, failed: int, of: int, why: str) -> None:
        if failed > self.settings.failed_at_most * of:
            limit = f"{self.place}.failed_at_most is {self.settings.failed_at_most:g}"
            raise TooFewScores(
                f"{failed} of {of} answers of a step have no score of the judge, and {limit}; the last time: {why}"
            )

    def _ask(self, texts: tuple[JudgedText, ...]) -> Judgements:
        given = self.settings
        asked = JudgementRequest(
            judge=given.judge,
            rubric=given.rubric,
            base_model=self.base_model,
            registered=self.version,
            texts=texts,
            timeout_seconds=given.timeout_seconds,
        )
        return ask(self.address, asked, self.tick)

    def _identity(self, answer: Judgements) -> Identity:
        return Identity(answer.judge, answer.facts.get(JUDGE_MODEL_SHA256), self.settings.rubric.sha256)

    def _key(self, text: JudgedText) -> str:
        said = "\n".join([self.settings.judge.model_dump_json(), repr(self.identity), text.model_dump_json()])
        return hashlib.sha256(said.encode()).hexdigest()

    def _fault(self, refused: JudgementsRefused) -> UserFault:
        return UserFault(
            *(
                reason.model_copy(update={"field": f"{self.place.removesuffix('.feedback')}.{reason.field}"})
                if reason.field.startswith("feedback")
                else reason
                for reason in refused.reasons
            )
        )


def judged_text(messages: Sequence[Message], columns: Mapping[str, str], text: str) -> JudgedText:
    """Return an answer with its prompt as they are sent: NULs, which no route accepts, are replaced."""
    return JudgedText(
        messages=tuple(turn.model_copy(update={"content": _sendable(turn.content)}) for turn in messages),
        columns={_sendable(name): _sendable(value) for name, value in columns.items()},
        text=_sendable(text),
    )


def _sendable(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def batches(texts: Mapping[str, JudgedText]) -> Iterator[dict[str, JudgedText]]:
    """Cut texts into requests of bounded number and size."""
    batch, size = dict[str, JudgedText](), 0
    for key, text in texts.items():
        own = len(text.model_dump_json().encode())
        if batch and (len(batch) == TEXTS_AT_MOST or size + own > REQUEST_BYTES // 2):
            yield batch
            batch, size = {}, 0
        batch[key] = text
        size += own
    if batch:
        yield batch
