"""Limits what a retrying loop logs: a failure is logged when it begins or changes, then once a minute with its count."""

import time
from dataclasses import dataclass, field
from typing import Any

from structlog.stdlib import BoundLogger

from services.chassis.process.transient import described, is_transient

REPEAT_SECONDS = 60.0
_REMEMBERED = 20
"""The most distinct failures of one loop that are counted separately."""


@dataclass
class Repeats:
    """Counts how often each message occurred since it was last logged."""

    _logged: dict[str, tuple[float, int]] = field(default_factory=dict)
    """When each message was last logged, and how often it occurred since."""

    def times(self, sentence: str, now: float) -> int | None:
        """Return how often it occurred, this time included, if it must be logged now; None if it was logged a short while
        ago."""
        logged_at, suppressed = self._logged.get(sentence, (float("-inf"), 0))
        if now - logged_at < REPEAT_SECONDS:
            self._logged[sentence] = logged_at, suppressed + 1
            return None
        if sentence not in self._logged and len(self._logged) >= _REMEMBERED:
            self._logged.clear()
        self._logged[sentence] = now, 0
        return suppressed + 1

    def forget(self) -> None:
        """Treat every message as new from now on."""
        self._logged.clear()


class FailureLog:
    """Logs the failures of one loop until it works again."""

    def __init__(self, log: BoundLogger) -> None:
        self._log, self._repeats = log, Repeats()

    def failed(self, event: str, error: Exception, *, known: bool = False, **values: Any) -> None:
        """Log a failure: as a warning where the error is transient or `known`, else as an error with its traceback."""
        words = described(error)
        if (times := self._repeats.times(f"{event}: {words}", time.monotonic())) is None:
            return
        log = self._log.warning if known or is_transient(error) else self._log.exception
        log(event, error=words, **values, **({"times": times} if times > 1 else {}))

    def recovered(self) -> None:
        """Record that the loop works: the next failure is logged at once, even the same one."""
        self._repeats.forget()
