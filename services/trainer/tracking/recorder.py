"""Writes runs to MLflow. A process of its own, since the client blocks, and takes seconds and 200 MB to load.

It reads messages without delay and writes them every few seconds. While the server is away the newest measurements wait, up to
a limit. It ends when the service has ended, after a last try.
"""

import logging
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import BinaryIO, NoReturn

from services.chassis.process.redaction import hide, redact_output, secrets_in
from services.trainer.tracking.messages import TOLD, Notice, Told, Where
from services.trainer.tracking.runs import Runs

_WRITE_SECONDS = 2.0
_RETRY_SECONDS = 15.0
_QUEUED = 100_000
"""Messages that wait while the server answers slowly; further ones are dropped and counted."""


class UnreadMessages:
    """What was read and not yet taken."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Told] = queue.Queue(_QUEUED)
        self.ended = threading.Event()
        self.dropped = 0

    def read(self, lines: BinaryIO) -> None:
        """Read to the end of the input; a message for which there is no room is counted."""
        for line in lines:
            try:
                self._waiting.put_nowait(TOLD.validate_json(line))
            except queue.Full:
                self.dropped += 1
        self.ended.set()

    def take(self, seconds: float) -> list[Told]:
        """Return what has come within `seconds`, sooner if the input has ended."""
        self.ended.wait(seconds)
        return [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]

    def counted(self) -> int:
        """Return how many were dropped since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped


def record(
    runs: Runs, inbox: UnreadMessages, answer: Callable[[Notice], None], retry_seconds: float = _RETRY_SECONDS
) -> None:
    """Write what comes until the input has ended and everything is written, or cannot be."""
    retry_at, trouble = 0.0, False
    while True:
        last = inbox.ended.is_set()
        for message in inbox.take(_WRITE_SECONDS):
            runs.take(message)
        error = runs.trouble
        if last or time.monotonic() >= retry_at:
            error = runs.write()
            retry_at = time.monotonic() + retry_seconds if error else 0.0
        dropped = runs.counted() + inbox.counted()
        if dropped or bool(error) != trouble:
            answer(Notice(dropped=dropped, trouble=error))
            trouble = bool(error)
        if last:
            return


def main() -> NoReturn:
    """Record until standard input ends."""
    redact_output()
    channel = os.dup(1)
    os.dup2(2, 1)  # libraries print
    logging.disable()  # the service logs what is wrong, once
    warnings.simplefilter("ignore")
    lines = sys.stdin.buffer
    where = Where.model_validate_json(lines.readline())
    hide(secrets_in(where.uri))
    inbox = UnreadMessages()
    threading.Thread(target=inbox.read, args=(lines,), name="inbox", daemon=True).start()
    record(Runs(where), inbox, lambda notice: _answer(channel, notice))
    os._exit(0)  # the client's threads may wait for the network


def _answer(channel: int, notice: Notice) -> None:
    try:
        os.write(channel, notice.model_dump_json().encode() + b"\n")
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main()
