"""Where one consumer stands on one assigned partition: a value, all of whose transitions are here.

A poll whose first record lies beyond the next offset means one of two things. Either nothing readable lies between them (a
transaction's marker, aborted records): the jump is the log's own. Or records were taken from the client that were not
applied: a poll that failed, or one that was on its way when another task sought. Only right after a seek by the polling
task itself is the second impossible. So such a seek gives a licence to believe one jump, and the licence is withdrawn
when a poll is about to be judged: whatever becomes of the judgement and of that poll, the next jump is a gap.

    unsought --sought--> sought --accept--> reading --applied--> reading
    reading or sought --ended, not all applied--> unsought
    reading or sought --lost--> unsought
    reading or sought --sought--> sought
    any --stopped--> stopped --due--> unsought
"""

from dataclasses import dataclass, replace
from typing import Literal

from services.chassis.kernel.consuming.identity.examine import Standing

State = Literal["unsought", "sought", "reading", "stopped"]
Step = Literal["next", "jump", "doubt"]
"""What the first offset of a poll means: the poll follows at once; it follows if the log itself has nothing between;
it does not follow, so that the partition must be sought anew."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a partition stopped. It is over when something was applied, or the log may be read again; until then each stop counts."""

    why: Standing
    until: float
    """Monotonic time at which the partition is tried again."""
    stops: int = 1

    def lasts_at(self, offset: int) -> bool:
        """Whether it is not over yet when the partition may be read from `offset`: the record that stopped it is still to come."""
        return self.why.cause in ("record", "gap") and self.why.offset == offset


@dataclass(frozen=True, slots=True)
class PartitionCursor:
    """What is known of one assigned partition. A partition that is not assigned has no cursor."""

    epoch: int
    """Grows with each assignment, seek and stop of the partition: what began under another epoch has no say."""
    state: State = "unsought"
    next_offset: int | None = None
    """Everything below was applied or passed over by rights; None before the first seek."""
    licence: bool = False
    """Whether one jump may be believed, as far as the log has nothing between."""
    waiting_since: float | None = None
    """Time of the oldest record seen and not applied, seconds since 1970."""
    trouble: Trouble | None = None

    def sought(self, offset: int, epoch: int, *, by_poller: bool) -> "PartitionCursor":
        """The client fetches from `offset`, the database's position; the polling task asked for that, or another one did."""
        trouble = self.trouble if self.trouble and self.trouble.lasts_at(offset) else None
        return replace(self, epoch=epoch, state="sought", next_offset=offset, licence=by_poller, trouble=trouble)

    def step(self, first: int) -> Step:
        """What it means that a poll begins at `first`."""
        if self.state not in ("sought", "reading") or self.next_offset is None or first < self.next_offset:
            return "doubt"
        if first == self.next_offset:
            return "next"
        return "jump" if self.licence else "doubt"

    def judged(self) -> "PartitionCursor":
        """A poll is about to be judged, which may fail."""
        return replace(self, licence=False)

    def accept(self, since: float) -> "PartitionCursor":
        """A poll that follows is about to be applied; its oldest record is of the time `since`."""
        return replace(self, state="reading", licence=False, waiting_since=since)

    def applied(self, end: int) -> "PartitionCursor":
        """Everything below `end` is applied."""
        return replace(self, state="reading", next_offset=end, licence=False, waiting_since=None, trouble=None)

    def ended(self, end: int, epoch: int) -> "PartitionCursor":
        """A poll up to `end`, since whose judgement the partition was not sought, is done with: where not all of it was applied,
        the partition must be sought anew."""
        return self if self.next_offset is not None and self.next_offset >= end else self.lost(epoch)

    def lost(self, epoch: int) -> "PartitionCursor":
        """The client may have passed records that it did not hand over: the partition must be sought anew."""
        return replace(self, epoch=epoch, state="unsought") if self.state in ("sought", "reading") else self

    def doubted(self, epoch: int) -> "PartitionCursor":
        """What was known of the log holds no more: the partition is to be sought as if it were new."""
        return replace(self, epoch=epoch, state="unsought")

    def stopped(self, why: Standing, until: float, epoch: int) -> "PartitionCursor":
        """Nothing is accepted before `until`, monotonic."""
        stops = self.trouble.stops + 1 if self.trouble else 1
        return replace(self, epoch=epoch, state="stopped", licence=False, trouble=Trouble(why, until, stops))

    def due(self, now: float, epoch: int) -> "PartitionCursor":
        """A partition whose stop is over is to be sought as if it were new; any other stays as it is."""
        if self.state != "stopped" or self.trouble is None or now < self.trouble.until:
            return self
        return replace(self, epoch=epoch, state="unsought")
