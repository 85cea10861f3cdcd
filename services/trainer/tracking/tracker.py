"""Passes what is to be recorded on to a recorder process, and keeps that process running; the service itself never waits for it.

The process is `python -m services.trainer.tracking.recorder`. It has MLflow's client, which the service does not import.
"""

import asyncio
import contextlib
import os
import sys

from pydantic import ValidationError

from services.chassis.executor.waiting import first_of
from services.chassis.process.logging import get_logger
from services.chassis.process.redaction import redacted
from services.chassis.process.transient import wait_or_stop
from services.trainer.tracking.messages import Begun, Measured, Notice, Told, Where
from services.trainer.tracking.metrics import DROPPED

_log = get_logger(__name__)
_UNREAD_BYTES = 1024 * 1024
"""With more than this unread, since the recorder hangs, measurements are dropped."""
_RESTART_SECONDS = 10.0
_END_SECONDS = 5.0
_SERVICE = "trainer"
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""The server answers within half a minute or counts as away; the service's own environment may say otherwise."""
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Tracker:
    """The service's end of the recorder. `drain_seconds`: how long it waits at the end for the attempts to end."""

    def __init__(self, uri: str, experiment: str, drain_seconds: float) -> None:
        self._where = Where(uri=uri, experiment=experiment)
        self._drain_seconds = drain_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._open: dict[str, list[Told]] = {}
        """By run, what a new process has to know: how it began, and how it ended where no process was there to hear it."""
        self._closed = asyncio.Event()
        self._trouble = self._deaf = False

    def tell(self, message: Told) -> None:
        """Pass a message on, or count it as dropped; this never blocks."""
        if isinstance(message, Measured):
            deaf = self._unread() > _UNREAD_BYTES or not self._write(message)
            if deaf or self._deaf:
                trouble = "its recorder does not run, or does not read" if deaf else None
                self._note(Notice(dropped=int(deaf), trouble=trouble))
            self._deaf = deaf
            return
        self._open.setdefault(message.run, []).append(message)
        if self._write(message) and not isinstance(message, Begun):
            del self._open[message.run]
            self._closed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep a recorder until `stop` and until the attempts have ended; then it has a few seconds to write what it has."""
        while not stop.is_set():
            try:
                await self._keep(stop)
            except OSError as error:
                _log.warning("the MLflow recorder cannot be started", error=str(error))
            await wait_or_stop(stop, _RESTART_SECONDS)

    async def _keep(self, stop: asyncio.Event) -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.trainer.tracking.recorder", stdin=pipe, stdout=pipe, start_new_session=True,
            env={**_PATIENCE, **os.environ, **_QUIET},
        )  # fmt: skip
        self._process = process
        reading = asyncio.create_task(self._read(process))
        try:
            self._write(self._where)
            for run in list(self._open):
                for message in self._open.pop(run):
                    self.tell(message)
            await first_of(asyncio.wait({reading}), stop.wait())
            if not reading.done():
                await first_of(asyncio.wait({reading}), self._all_closed())
                self._end_input()
                await asyncio.wait({reading}, timeout=_END_SECONDS)
            else:
                _log.warning("the MLflow recorder ended; another is started", returncode=await process.wait())
        finally:
            self._process = None
            reading.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _all_closed(self) -> None:
        """Wait until no attempt is open, at most for the time of a drain."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while self._open:
                    self._closed.clear()
                    await self._closed.wait()

    def _write(self, message: Told | Where) -> bool:
        stdin = None if self._process is None else self._process.stdin
        if stdin is None or stdin.is_closing():
            return False
        stdin.write(message.model_dump_json().encode() + b"\n")
        return True

    def _unread(self) -> int:
        stdin = None if self._process is None else self._process.stdin
        return stdin.transport.get_write_buffer_size() if stdin else 0

    def _end_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        while process.stdout is not None and (line := await process.stdout.readline()):
            with contextlib.suppress(ValidationError):
                self._note(Notice.model_validate_json(line))

    def _note(self, notice: Notice) -> None:
        DROPPED.labels(_SERVICE).inc(notice.dropped)
        if notice.trouble is not None and not self._trouble:
            _log.warning(
                "MLflow does not take what is recorded; it is tried again, and no step waits",
                error=redacted(notice.trouble),
            )
        elif notice.trouble is None and self._trouble:
            _log.info("MLflow takes what is recorded again")
        self._trouble = notice.trouble is not None
