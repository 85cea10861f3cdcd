"""What keeps failing in a loop that tries again is logged when it begins or changes, then once a minute with how often it came."""

import time
from dataclasses import dataclass, field
from typing import Any

from structlog.stdlib import BoundLogger

from services.chassis.process.transient import described, is_transient

REPEAT_SECONDS = 60.0
_REMEMBERED = 20
"""So many different faults of one loop are told apart."""


@dataclass
class Repeats:
    """How often each sentence came since it was last said."""

    _said: dict[str, tuple[float, int]] = field(default_factory=dict)
    """When it was last said, and how often it came since."""

    def times(self, sentence: str, now: float) -> int | None:
        """How often it came, this time included, where it is to be said now; None where it was said a short while ago."""
        said_at, unsaid = self._said.get(sentence, (float("-inf"), 0))
        if now - said_at < REPEAT_SECONDS:
            self._said[sentence] = said_at, unsaid + 1
            return None
        if sentence not in self._said and len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[sentence] = now, 0
        return unsaid + 1

    def forget(self) -> None:
        """What comes from now on is new."""
        self._said.clear()


class Lasting:
    """The faults of one loop, until something works."""

    def __init__(self, log: BoundLogger) -> None:
        self._log, self._repeats = log, Repeats()

    def failed(self, event: str, error: Exception, *, known: bool = False, **values: Any) -> None:
        """The loop failed: a warning where the surroundings explain it, or it is `known`; else an error with its traceback."""
        words = described(error)
        if (times := self._repeats.times(f"{event}: {words}", time.monotonic())) is None:
            return
        log = self._log.warning if known or is_transient(error) else self._log.exception
        log(event, error=words, **values, **({"times": times} if times > 1 else {}))

    def over(self) -> None:
        """It works: the same fault is news again."""
        self._repeats.forget()
