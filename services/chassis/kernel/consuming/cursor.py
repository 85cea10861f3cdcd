"""Models where a consumer is on an assigned partition, as an immutable value with all of its transitions.

A poll whose first record lies beyond the next offset means one of two things. Either nothing readable lies between them (a
transaction marker, aborted records), so the log itself has the gap. Or the client returned records that were not applied: a
poll failed, or a poll was under way when another task sought. The second is impossible only right after a seek by the polling
task itself. So such a seek gives a licence to accept one jump, and the licence ends when the next poll is checked: whatever
that check and that poll lead to, the jump after it counts as a gap.

    unsought --sought--> sought --accept--> reading --applied--> reading
    reading or sought --ended, not all applied--> unsought
    reading or sought --lost--> unsought
    reading or sought --sought--> sought
    any --stopped--> stopped --due--> unsought
"""

from dataclasses import dataclass, replace
from typing import Literal

from services.chassis.kernel.consuming.identity.examine import PartitionStop

State = Literal["unsought", "sought", "reading", "stopped"]
Continuation = Literal["next", "jump", "doubt"]
"""What the first offset of a poll means. next: the poll follows directly. jump: it follows if the log has nothing readable
between. doubt: it does not follow, so the partition must be sought again."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a partition stopped. It ends when a record was applied or the log may be read again; until then stops are counted."""

    why: PartitionStop
    until: float
    """Monotonic time at which the partition is tried again."""
    stops: int = 1

    def lasts_at(self, offset: int) -> bool:
        """Whether it continues when the partition may be read from `offset`: the record that stopped it comes next."""
        return self.why.cause in ("record", "gap") and self.why.offset == offset


@dataclass(frozen=True, slots=True)
class PartitionCursor:
    """The reading state of one assigned partition. A partition that is not assigned has no cursor."""

    epoch: int
    """Grows with each assignment, seek and stop of the partition: work that began under another epoch is ignored."""
    state: State = "unsought"
    next_offset: int | None = None
    """Every record below is applied, skipped or a dead letter; None before the first seek."""
    may_jump: bool = False
    """Whether one jump may be accepted if the log has nothing readable between."""
    waiting_since: float | None = None
    """Time of the oldest record received and not applied, seconds since 1970."""
    trouble: Trouble | None = None

    def sought(self, offset: int, epoch: int, *, by_poller: bool) -> "PartitionCursor":
        """The client fetches from `offset`, the database's position; `by_poller` says whether the polling task sought."""
        trouble = self.trouble if self.trouble and self.trouble.lasts_at(offset) else None
        return replace(self, epoch=epoch, state="sought", next_offset=offset, may_jump=by_poller, trouble=trouble)

    def step(self, first: int) -> Continuation:
        """What a poll that begins at `first` means."""
        if self.state not in ("sought", "reading") or self.next_offset is None or first < self.next_offset:
            return "doubt"
        if first == self.next_offset:
            return "next"
        return "jump" if self.may_jump else "doubt"

    def judged(self) -> "PartitionCursor":
        """A poll is about to be checked, which may fail: the licence ends."""
        return replace(self, may_jump=False)

    def accept(self, since: float) -> "PartitionCursor":
        """A poll that follows is about to be applied; `since` is the time of its oldest record."""
        return replace(self, state="reading", may_jump=False, waiting_since=since)

    def applied(self, end: int) -> "PartitionCursor":
        """Everything below `end` is applied."""
        return replace(self, state="reading", next_offset=end, may_jump=False, waiting_since=None, trouble=None)

    def ended(self, end: int, epoch: int) -> "PartitionCursor":
        """A poll up to `end` is finished, and the partition was not sought since it was checked: unless all of it was applied, the
        partition must be sought again."""
        return self if self.next_offset is not None and self.next_offset >= end else self.lost(epoch)

    def lost(self, epoch: int) -> "PartitionCursor":
        """The client may have skipped records that it did not return: the partition must be sought again."""
        return replace(self, epoch=epoch, state="unsought") if self.state in ("sought", "reading") else self

    def doubted(self, epoch: int) -> "PartitionCursor":
        """The log may have changed: the partition must be sought like a new one."""
        return replace(self, epoch=epoch, state="unsought")

    def stopped(self, why: PartitionStop, until: float, epoch: int) -> "PartitionCursor":
        """No record is accepted before `until`, monotonic."""
        stops = self.trouble.stops + 1 if self.trouble else 1
        return replace(self, epoch=epoch, state="stopped", may_jump=False, trouble=Trouble(why, until, stops))

    def due(self, now: float, epoch: int) -> "PartitionCursor":
        """A partition whose stop has expired must be sought like a new one; any other cursor is unchanged."""
        if self.state != "stopped" or self.trouble is None or now < self.trouble.until:
            return self
        return replace(self, epoch=epoch, state="unsought")
