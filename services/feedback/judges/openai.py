"""Judges with a model behind any OpenAI-compatible endpoint: in both orders, with bounded concurrency and cached answers.

A label can be missing for three reasons: the endpoint fails (if that is systematic, the step stops and may be retried
later), its answer cannot be read (if systematic, a user's fault: another model is needed), or its verdict depends on the
order.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

from schemas.lines import Message
from schemas.reasons import Reason, shown
from schemas.recipes import JudgeSettings, Rubric
from services.chassis.executor.child import UserFault
from services.chassis.storage.sources.allowed import Allowed
from services.feedback.judges import prompts
from services.feedback.judges.answer_cache import Answer, AnswerCache
from services.feedback.judges.endpoint import Endpoint, JudgeAway
from services.feedback.judges.failure_limit import FailureLimit
from services.feedback.judges.judge import Judged, Orders, Tick
from services.feedback.judges.keys import key_for

_AT_ONCE = 8
_LOOK_SECONDS = 0.5
"""Interval at which a wait for answers is interrupted to report progress and check whether to stop."""
_Reader = Callable[[Mapping[str, float]], float | None]


class OpenAIJudge:
    """Compares by letters and scores by grades; it uses token probabilities if the endpoint returns them."""

    def __init__(
        self, settings: JudgeSettings, rubric: Rubric, allowed: Allowed, open_journal: Callable[[], AnswerCache]
    ) -> None:
        """Raises UserFault if a job may not name the endpoint or the key's variable, or if the key is not set."""
        self.name = f"openai:{settings.model}"
        self._settings, self._rubric, self._open_journal = settings, rubric, open_journal
        self._allowed = allowed
        self._key = key_for(settings, allowed, os.environ)

    def score(self, texts: Sequence[Judged], tick: Tick) -> list[float | None]:
        """Grades from 1 to 5: the mean under the token probabilities, if there are any."""
        asked = [prompts.grading(self._rubric, text) for text in texts]
        return asyncio.run(self._ask(asked, prompts.GRADES, prompts.expected_grade, tick))

    def compare(self, pairs: Sequence[tuple[Judged, Judged]], tick: Tick) -> list[Orders]:
        """Compare each pair with two questions, one for each order."""
        asked = prompts.both_orders(self._rubric, pairs)
        return prompts.orders(asyncio.run(self._ask(asked, prompts.LETTERS, prompts.preference, tick)))

    async def _ask(
        self, asked: Sequence[tuple[Message, ...]], choices: Sequence[str], reader: _Reader, tick: Tick
    ) -> list[float | None]:
        with closing(self._open_journal()) as journal:
            async with Endpoint(self._settings, self._key, self._allowed) as endpoint:
                run = _Run(str(self._settings.model), asked, endpoint, journal, choices, reader)
                await run.all(tick)
        return run.values


class _Run:
    """All questions of one kind."""

    def __init__(
        self,
        model: str,
        asked: Sequence[tuple[Message, ...]],
        endpoint: Endpoint,
        journal: AnswerCache,
        choices: Sequence[str],
        reader: _Reader,
    ) -> None:
        self._model, self._asked, self._endpoint, self._journal = model, asked, endpoint, journal
        self._choices, self._reader = choices, reader
        self._answering, self._reading = FailureLimit(), FailureLimit()
        self._done = 0
        self._last_unread = ""
        self.values: list[float | None] = [None] * len(asked)

    async def all(self, tick: Tick) -> None:
        """Ask the questions without a cached answer: the shortest first and alone, then a few at once, in order."""
        waiting = [place for place in range(len(self._asked)) if not self._recalled(place)]
        if waiting:
            shortest = min(waiting, key=lambda place: sum(len(turn.content) for turn in self._asked[place]))
            self._note(shortest, await self._endpoint.first(self._asked[shortest]))
            waiting.remove(shortest)
        left = iter(waiting)
        workers = [asyncio.create_task(self._work(left)) for _ in range(_AT_ONCE)]
        try:
            pending = set(workers)
            while pending:
                tick(self._done, len(self._asked))
                ended, pending = await asyncio.wait(pending, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for worker in ended:
                    worker.result()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        tick(self._done, len(self._asked))

    async def _work(self, left: Iterator[int]) -> None:
        for place in left:
            self._note(place, await self._endpoint.ask(self._asked[place]))

    def _recalled(self, place: int) -> bool:
        answer = self._journal.recall(self._model, self._asked[place])
        if answer is not None:
            self._take(place, answer)
        return answer is not None

    def _note(self, place: int, answer: Answer | None) -> None:
        """Record an answer. Raises if failures are systematic."""
        if answer is not None:
            self._journal.keep(self._model, self._asked[place], answer)
            self._take(place, answer)
        else:
            self._done += 1
        self._answering.note(answer is not None)
        if answer is not None:
            self._reading.note(self.values[place] is not None)
        if self._answering.exhausted:
            counts = f"{self._answering.failed} of {self._answering.asked} questions"
            raise JudgeAway(f"the judge gave no answer to {counts}; the last time: {self._endpoint.last_failure}")
        if self._reading.exhausted:
            wanted = " or ".join((", ".join(self._choices[:-1]), self._choices[-1]))
            raise UserFault(
                Reason(
                    field="feedback.judge.model",
                    value=shown(self._model),
                    message=f"{self._reading.failed} of {self._reading.asked} answers are not {wanted}; "
                    f"the last one has {len(self._last_unread)} characters",
                    remedy="name a model that does as it is told, or another judge",
                )
            )

    def _take(self, place: int, answer: Answer) -> None:
        self._done += 1
        probabilities = prompts.read(answer.text, answer.positions, self._choices)
        self.values[place] = None if probabilities is None else self._reader(probabilities)
        if self.values[place] is None:
            self._last_unread = answer.text
