"""What a run draws from: one seeded source of chance, one clock, and whether faults still happen."""

import math
import random
from collections.abc import Iterable
from typing import TypeVar

from tests.simulation.clock import Clock
from tests.simulation.turns import turn

_Item = TypeVar("_Item")


class Weather:
    """Chance, time and faults of one run."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.faulty = True
        self.alarms: list[float] = []
        """Times at which a task continues, in seconds of the clock."""

    def shuffled(self, items: Iterable[_Item]) -> list[_Item]:
        """Return the items in a random order."""
        found = list(items)
        self.chance.shuffle(found)
        return found

    def alarm(self, seconds: float) -> float:
        """Return the time after this many seconds, at which a task continues: a whole millisecond, so that the clock can
        reach it."""
        until = math.ceil((self.clock.seconds + seconds) * 1000) / 1000
        self.alarms.append(until)
        return until

    async def wait(self, seconds: float) -> None:
        """Wait until this much time has passed."""
        until = self.alarm(seconds)
        await turn(lambda: self.clock.seconds >= until)
