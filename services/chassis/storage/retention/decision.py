"""Which of what was found is kept: a pure function of the rule, the time and what is known of each."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from services.chassis.storage.retention.policy import Rule


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that may have to go: a file, or a folder with all that is in it."""

    path: Path
    at: datetime
    """When it was last of use."""
    size: int
    """Bytes."""
    referenced: bool = False
    """Whether somebody needs it, so that it stays."""


def expired(rule: Rule, now: datetime, found: Iterable[Found]) -> list[Found]:
    """What goes, the oldest first: never what is referenced, and for want of room nothing that is younger than `rule.least`."""
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
