"""Defines the parts of one split of the demo's data, and the names of queues, priorities and qualities.

Each split has its own wordings, phrases and items, so that a held-out request is new in every part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

QUEUES = ("billing", "delivery", "returns", "technical", "account")
PRIORITIES = ("high", "normal", "low")
QUALITIES = ("good", "curt", "vague", "over-promising")


@dataclass(frozen=True)
class Parts:
    """The parts of one split's requests: a wording about an item, then a phrase that shows the priority."""

    wordings: Mapping[str, tuple[str, ...]]
    phrases: Mapping[str, tuple[str, ...]]
    items: tuple[str, ...]
