"""Runs the process of one judge: starts it when it is needed, asks it, and ends it when it fails or takes too long."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from typing import IO, TypeVar

from pydantic import BaseModel

from schemas.judgements import JudgedText, Judgements
from schemas.reasons import Reason
from services.chassis.executor.supervise import child_environment
from services.chassis.executor.text import tail_of
from services.chassis.process.logging import get_logger
from services.feedback.judging.messages import LINE_LIMIT, JudgeTask, Ready, Scores, Texts

_log = get_logger(__name__)
_MODULE = "services.feedback.judging.child"
_Reply = TypeVar("_Reply", bound=BaseModel)


class JudgeRefused(Exception):
    """The judge cannot be used as the caller has set it."""

    def __init__(self, reasons: tuple[Reason, ...]) -> None:
        super().__init__("; ".join(map(str, reasons)))
        self.reasons = reasons


class JudgeFailed(Exception):
    """The judge gave no scores this time; it may be asked again."""


class JudgeProcess:
    """One judge; it answers one caller at a time."""

    def __init__(self, task: JudgeTask) -> None:
        self._task = task
        self._process: asyncio.subprocess.Process | None = None
        self._ready = Ready()
        self._output: IO[bytes] | None = None
        self.lock = asyncio.Lock()
        self.callers = 0
        """Those that ask or wait."""
        self.used_at = time.monotonic()

    async def judge(self, texts: tuple[JudgedText, ...]) -> Judgements:
        """Return the judge's scores; call it under the lock. Raises JudgeRefused and JudgeFailed.

        A process that has failed, or whose caller gave up, is ended; the next call starts another one.
        """
        try:
            if self._process is None:
                await self._start()
            scores = await self._asked(Texts(texts=texts), Scores) if texts else Scores()
        except JudgeRefused:
            await self.end()
            raise
        except (BrokenPipeError, ConnectionResetError, asyncio.IncompleteReadError) as error:
            said = await self._last_words()
            raise JudgeFailed(said) from error
        except BaseException:
            await self.end()
            raise
        if scores.reasons:
            raise JudgeRefused(scores.reasons)
        if scores.failed is not None:
            raise JudgeFailed(scores.failed)
        return Judgements(judge=self._ready.judge, facts=self._ready.facts, scores=scores.scores)

    async def _start(self) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # it is closed with the process
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=self._output,
            start_new_session=True, env=child_environment(os.environ), limit=LINE_LIMIT,
        )  # fmt: skip
        self._ready = await self._asked(self._task, Ready)
        if self._ready.reasons:
            raise JudgeRefused(self._ready.reasons)

    async def _asked(self, line: BaseModel, reply: type[_Reply]) -> _Reply:
        """Write a line and return the reply. Raises IncompleteReadError if the process has ended."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("the process is not started, or has no pipes")
        process.stdin.write(line.model_dump_json().encode() + b"\n")
        await process.stdin.drain()
        return reply.model_validate_json(await process.stdout.readuntil(b"\n"))

    async def _last_words(self) -> str:
        """Return what is known of a process that has ended by itself; its output goes to the log."""
        if self._process is None or self._output is None:
            return "the feedback service is stopping"
        code = await self._process.wait()
        _log.warning("a judge's process ended", code=code, output=tail_of(self._output))
        await self.end()
        return f"the judge's process ended with code {code}; the feedback service's log has its output"

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    async def end(self) -> None:
        """End the process with all that it started, if it runs."""
        process, output, self._process, self._output = self._process, self._output, None, None
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()
        if output is not None:
            output.close()
