"""Time that passes when the simulation says so."""

from datetime import UTC, datetime, timedelta

_START = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    """The one clock of a run."""

    def __init__(self) -> None:
        self.now = _START

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def reach(self, moment: datetime) -> None:
        """Let time pass up to `moment`."""
        self.now = max(self.now, moment)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return (self.now - _START).total_seconds()
