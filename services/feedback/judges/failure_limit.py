"""Decides when failed requests to a judge are systematic: a few only cost labels, too many end the step. Pure."""

from dataclasses import dataclass

_RUN = 12
_LEAST = 30
_SHARE = 0.5


@dataclass(slots=True)
class FailureLimit:
    """Counts successes and failures; `exhausted` if the last twelve failed, or half of at least thirty."""

    asked: int = 0
    failed: int = 0
    run: int = 0
    """Failures since the last success."""

    def note(self, succeeded: bool) -> None:
        """Record the outcome of one request."""
        self.asked += 1
        self.failed += not succeeded
        self.run = 0 if succeeded else self.run + 1

    @property
    def exhausted(self) -> bool:
        """Whether failures are systematic."""
        return self.run >= _RUN or (self.asked >= _LEAST and self.failed >= _SHARE * self.asked)
