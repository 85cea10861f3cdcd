"""Decides which files retention keeps: a pure function of the rule, the time and what is known of each file."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from services.chassis.storage.retention.policy import RetentionRule


@dataclass(frozen=True, slots=True)
class RemovalCandidate:
    """A candidate for removal: a file, or a folder with its content."""

    path: Path
    at: datetime
    """When it was last used."""
    size: int
    """Bytes."""
    referenced: bool = False
    """Whether it is still needed, so that it is kept."""


def expired(rule: RetentionRule, now: datetime, found: Iterable[RemovalCandidate]) -> list[RemovalCandidate]:
    """What is to be removed, oldest first: nothing referenced, and to free space nothing younger than `rule.least`."""
    known = sorted(found, key=lambda one: (one.at, str(one.path)))
    size, count = sum(one.size for one in known), len(known)
    gone = []
    for one in known:
        if one.referenced:
            continue
        crowded = (rule.size is not None and size > rule.size) or (rule.count is not None and count > rule.count)
        if now - one.at > rule.age or (crowded and now - one.at > rule.least):
            gone.append(one)
            size, count = size - one.size, count - 1
    return gone
