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
from schemas.recipes.feedback import JudgeSettings, Rubric
from services.chassis.executor.child import UserFault
from services.chassis.storage.sources.allowed import AllowedSources
from services.feedback.judges import prompts
from services.feedback.judges.answer_cache import Answer, AnswerCache
from services.feedback.judges.endpoint import Endpoint, Form, JudgeAway
from services.feedback.judges.failure_limit import FailureLimit
from services.feedback.judges.judge import Orders, TextToJudge, Tick
from services.feedback.judges.keys import key_for

_AT_ONCE = 8
_TRIED = 8
"""The most questions by which an endpoint is tried that refuses them; fewer than those after which failures count as systematic."""
_LOOK_SECONDS = 0.5
"""Interval at which a wait for answers is interrupted to report progress and check whether to stop."""
_Reader = Callable[[Mapping[str, float]], float | None]


class OpenAIJudge:
    """Compares by letters and scores by grades; it uses token probabilities if the endpoint returns them."""

    def __init__(
        self, settings: JudgeSettings, rubric: Rubric, allowed: AllowedSources, open_cache: Callable[[], AnswerCache]
    ) -> None:
        """Raises UserFault if a job may not name the endpoint or the key's variable, or if the key is not set."""
        self.name = f"openai:{settings.model}"
        self._settings, self._rubric, self._open_cache = settings, rubric, open_cache
        self._allowed = allowed
        self._key = key_for(settings, allowed, os.environ)
        self._form: Form | None = None
        """The form of requests by which the endpoint has given answers that can be read."""

    def score(self, texts: Sequence[TextToJudge], tick: Tick) -> list[float | None]:
        """Grades from 1 to 5: the mean under the token probabilities, if there are any."""
        questions = [prompts.grading(self._rubric, text) for text in texts]
        return asyncio.run(self._ask(questions, prompts.GRADES, prompts.expected_grade, tick))

    def compare(self, pairs: Sequence[tuple[TextToJudge, TextToJudge]], tick: Tick) -> list[Orders]:
        """Compare each pair with two questions, one for each order."""
        questions = prompts.both_orders(self._rubric, pairs)
        return prompts.orders(asyncio.run(self._ask(questions, prompts.LETTERS, prompts.preference, tick)))

    async def _ask(
        self, questions: Sequence[tuple[Message, ...]], choices: Sequence[str], reader: _Reader, tick: Tick
    ) -> list[float | None]:
        with closing(self._open_cache()) as cache:
            async with Endpoint(self._settings, self._key, self._allowed, self._form) as endpoint:
                run = _Run(str(self._settings.model), questions, endpoint, cache, choices, reader)
                await run.all(tick)
        if any(value is not None for value in run.values):
            self._form = endpoint.form
        return run.values


class _Run:
    """All questions of one kind."""

    def __init__(
        self,
        model: str,
        questions: Sequence[tuple[Message, ...]],
        endpoint: Endpoint,
        cache: AnswerCache,
        choices: Sequence[str],
        reader: _Reader,
    ) -> None:
        self._model, self._questions, self._endpoint, self._cache = model, questions, endpoint, cache
        self._choices, self._reader = choices, reader
        self._answering, self._reading = FailureLimit(), FailureLimit()
        self._done = 0
        self._last_unread = ""
        self.values: list[float | None] = [None] * len(questions)

    async def all(self, tick: Tick) -> None:
        """Ask the questions without a cached answer: the shortest first and alone, then a few at once, in order."""
        waiting = [index for index in range(len(self._questions)) if not self._recalled(index)]
        waiting = await self._try(waiting, tick)
        left = iter(waiting)
        workers = [asyncio.create_task(self._work(left)) for _ in range(_AT_ONCE)]
        try:
            pending = set(workers)
            while pending:
                tick(self._done, len(self._questions))
                ended, pending = await asyncio.wait(pending, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for worker in ended:
                    worker.result()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        tick(self._done, len(self._questions))

    async def _try(self, waiting: Sequence[int], tick: Tick) -> list[int]:
        """Ask one question after the other until one is accepted, and return the others. A refusal may concern one text only, so
        the endpoint is at fault if it refuses several, or all, and has accepted none before."""
        shortest = sorted(waiting, key=lambda index: sum(len(turn.content) for turn in self._questions[index]))
        for tried, index in enumerate(shortest[:_TRIED], 1):
            tick(self._done, len(self._questions))
            answer = await self._endpoint.first(self._questions[index])
            self._note(index, answer)
            if answer is not None:
                return sorted(shortest[tried:])
        if waiting and self._endpoint.form is None:
            raise self._endpoint.refusal()
        return sorted(shortest[_TRIED:])

    async def _work(self, left: Iterator[int]) -> None:
        for index in left:
            self._note(index, await self._endpoint.ask(self._questions[index]))

    def _recalled(self, index: int) -> bool:
        answer = self._cache.recall(self._model, self._questions[index])
        if answer is not None:
            self._take(index, answer)
        return answer is not None

    def _note(self, index: int, answer: Answer | None) -> None:
        """Record an answer. Raises if failures are systematic."""
        if answer is not None:
            self._cache.keep(self._model, self._questions[index], answer)
            self._take(index, answer)
        else:
            self._done += 1
        self._answering.note(answer is not None)
        if answer is not None:
            self._reading.note(self.values[index] is not None)
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
                    remedy="name a model that follows instructions, or another judge",
                )
            )

    def _take(self, index: int, answer: Answer) -> None:
        self._done += 1
        probabilities = prompts.read(answer.text, answer.positions, self._choices)
        self.values[index] = None if probabilities is None else self._reader(probabilities)
        if self.values[index] is None:
            self._last_unread = answer.text
