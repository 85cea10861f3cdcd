"""Time that passes when the simulation says so."""

from datetime import UTC, datetime, timedelta

_START = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    """The true time of a run, which is the broker's time."""

    def __init__(self) -> None:
        self.now = _START
        self.seconds = 0.0
        """Seconds since the start."""

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.reach(self.now + timedelta(seconds=seconds))

    def reach(self, moment: datetime) -> None:
        """Let time pass up to `moment`."""
        self.now = max(self.now, moment)
        self.seconds = (self.now - _START).total_seconds()


class WrongClock(Clock):
    """A database's clock with a constant difference from the true time."""

    def __init__(self, true: Clock, ahead: timedelta) -> None:
        self._true, self.ahead = true, ahead

    @property
    def now(self) -> datetime:  # type: ignore[override]
        """The time of this clock."""
        return self._true.now + self.ahead

    def true(self, moment: datetime) -> datetime:
        """Return the true time at which this clock shows `moment`."""
        return moment - self.ahead
