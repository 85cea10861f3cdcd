"""Keeps the judges that other services ask: a limited number of processes, each of which ends when nobody has asked for a while."""

import asyncio
import time

from schemas.judgements import JudgementRequest, Judgements
from services.chassis.executor.folders import cache_of
from services.chassis.process.transient import wait_or_stop
from services.feedback.judging.messages import JudgeTask
from services.feedback.judging.process import JudgeProcess
from services.feedback.settings import FeedbackSettings

_LOOK_SECONDS = 1.0


class JudgesBusy(Exception):
    """Another caller has the judge, or all processes work for other judges; the caller may ask again."""


class JudgeSlow(Exception):
    """The judge did not answer in the time that the caller allows."""


class Judges:
    """The judges by their settings."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self._settings = settings
        self._allowed = settings.sources.allowed(settings.home, settings.cache)
        self._processes: dict[JudgeTask, JudgeProcess] = {}
        self._ending: list[JudgeProcess] = []
        """Those that made room for another one."""

    async def judge(self, asked: JudgementRequest) -> Judgements:
        """Return the scores of the texts. Raises JudgesBusy, JudgeSlow, JudgeRefused and JudgeFailed."""
        task = JudgeTask(
            judge=asked.judge, rubric=asked.rubric, base_model=asked.base_model, version=asked.registered,
            artifacts_uri=self._settings.artifacts_uri,
            cache=cache_of(self._settings.home), allowed=self._allowed,
        )  # fmt: skip
        process, mine = self._process_of(task), False
        process.callers += 1
        try:
            async with asyncio.timeout(asked.timeout_seconds), process.lock:
                mine = True
                await self._make_room()
                return await process.judge(asked.texts)
        except TimeoutError:
            if mine:
                raise JudgeSlow(f"the judge did not answer within {asked.timeout_seconds:g} s") from None
            raise JudgesBusy("the judge still works for another caller") from None
        finally:
            process.callers -= 1
            process.used_at = time.monotonic()
            if not process.running and not process.callers:
                self._processes.pop(task, None)

    def _process_of(self, task: JudgeTask) -> JudgeProcess:
        if (known := self._processes.get(task)) is not None:
            return known
        if len(self._processes) >= self._settings.judge_processes:
            idle = {one for one, process in self._processes.items() if not process.callers}
            if not idle:
                raise JudgesBusy(f"{len(self._processes)} other judges are at work (NEUROWEAVER_JUDGE_PROCESSES)")
            self._ending.append(self._processes.pop(min(idle, key=lambda one: self._processes[one].used_at)))
        return self._processes.setdefault(task, JudgeProcess(task))

    async def run(self, stop: asyncio.Event) -> None:
        """End processes that nobody has asked for a while, and all of them in the end."""
        try:
            while not await wait_or_stop(stop, _LOOK_SECONDS):
                since = time.monotonic() - self._settings.judge_idle_seconds
                for task in [one for one, of in self._processes.items() if not of.callers and of.used_at < since]:
                    self._ending.append(self._processes.pop(task))
                await self._make_room()
        finally:
            self._ending += self._processes.values()
            self._processes.clear()
            await self._make_room()

    async def _make_room(self) -> None:
        while self._ending:
            await self._ending.pop().end()
