"""Records that cannot be handled: which, by whom and for how long is drawn when a service meets one for the first time.

Some fail for a moment, some until a mended version is installed, some for ever: those an operator has to give up. A bad
release makes most records of one service fail for a while. An own event fails for a time only: it is never set aside.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from services.chassis.kernel.records import RecordId, named
from tests.simulation.weather import Weather

Step = Literal["open", "fold"]
"""The step of the handling that fails: reading the event, so that only its key is known, or folding it."""


class Poisoned(Exception):
    """The handling of a record fails because of a bug."""


@dataclass
class Spell:
    """Why, and for how long, a service cannot handle one record."""

    step: Step
    until: float
    """Time of the clock in seconds; infinite if it never works."""
    times: int
    """The most attempts that fail."""


@dataclass
class Poison:
    """The poisoned records of one run."""

    weather: Weather
    share: float
    """Share of the records that cannot be handled; 0 for none."""
    _met: dict[tuple[str, RecordId], Spell | None] = field(default_factory=dict)
    _bad: dict[str, float] = field(default_factory=dict)
    """When each service's bad release ends."""

    def bad_release(self, service: str) -> None:
        """Make most records of the service fail from now on, until a better version is installed."""
        self._bad[service] = self.weather.alarm(self.weather.chance.uniform(5, 25))

    def strike(self, service: str, place: RecordId, step: Step, *, own: bool, hopeless: bool = True) -> None:
        """Raises Poisoned if the service cannot handle the record now."""
        if not self.share:
            return
        if (service, place) not in self._met:
            self._met[service, place] = self._drawn(service, own, hopeless) if self.weather.faulty else None
        spell = self._met[service, place]
        if spell is None or spell.step != step or spell.times <= 0 or self.weather.clock.seconds >= spell.until:
            return
        spell.times -= 1
        raise Poisoned(f"{service} does not get along with {named(place)}")

    def meet_again(self, service: str, place: RecordId) -> None:
        """Let a retry of a dead letter fail sometimes; for a parked record this is its first failure."""
        chance, met = self.weather.chance, (service, place)
        if self.share and self.weather.faulty and self._met.get(met) is None and chance.random() < 0.15:
            self._met[met] = Spell("fold", self.weather.alarm(chance.uniform(2, 40)), 1_000_000)

    def _drawn(self, service: str, own: bool, hopeless: bool) -> Spell | None:
        chance, now = self.weather.chance, self.weather.clock.seconds
        step: Step = "open" if not own and chance.random() < 0.2 else "fold"
        if now < (until := self._bad.get(service, 0.0)):
            return Spell(step, until, 1_000_000) if chance.random() < 0.7 else None
        if chance.random() >= self.share:
            return None
        drawn = chance.random()
        if drawn < 0.25:
            return Spell(step, math.inf, chance.randint(1, 2))
        if drawn < 0.75 or own or not hopeless:
            return Spell(step, self.weather.alarm(chance.uniform(2, 40)), 1_000_000)
        return Spell(step, math.inf, 1_000_000)

    def calm(self) -> None:
        """Correct all versions; records that never work still fail."""
        self._bad = {}
        self._met = {
            met: spell if spell is not None and spell.until == math.inf and spell.times > 2 else None
            for met, spell in self._met.items()
        }
