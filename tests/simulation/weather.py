"""What a run draws from: one seeded source of chance, one clock, and whether faults still happen."""

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
        """Moments at which somebody goes on, in seconds of the clock."""

    def shuffled(self, items: Iterable[_Item]) -> list[_Item]:
        """In an order that is drawn."""
        found = list(items)
        self.chance.shuffle(found)
        return found

    async def wait(self, seconds: float) -> None:
        """Until so much time has passed."""
        until = self.clock.seconds + seconds
        self.alarms.append(until)
        await turn(lambda: self.clock.seconds >= until)
