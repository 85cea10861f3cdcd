"""Holds what a consumer knows of its assigned partitions: a cursor for each, and a number that grows with each change. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.chassis.kernel.consuming.cursor import PartitionCursor
from services.chassis.kernel.records import Partition


@dataclass
class Assignment:
    """The partitions of one member of the group."""

    cursors: dict[Partition, PartitionCursor] = field(default_factory=dict)
    """One per assigned partition; empty while the group rebalances."""
    joins: int = 0
    """How often the group has assigned partitions to this member."""
    joined: bool = False
    revoked_at: float | None = None
    """Monotonic time of the last revocation; None before the first."""
    fault: str = ""
    """Why the last poll was not applied."""
    _epoch: int = 0

    def assign(self, partitions: Iterable[Partition]) -> None:
        """The group assigned exactly these partitions, possibly none; each has to be sought."""
        epoch = self.next_epoch()
        self.cursors = {partition: PartitionCursor(epoch) for partition in partitions}
        self.joined = True
        self.joins += 1

    def revoke(self, now: float) -> None:
        """This member owns no partition until the next assignment."""
        self.cursors, self.joined, self.fault = {}, False, ""
        self.revoked_at = now

    def lose(self) -> None:
        """The client fetched records and did not return them: every partition is sought again."""
        epoch = self.next_epoch()
        self.cursors = {partition: cursor.lost(epoch) for partition, cursor in self.cursors.items()}

    def end_stops(self, now: float) -> None:
        """Partitions whose stop is over by `now` have to be sought."""
        epoch = self.next_epoch()
        self.cursors = {partition: cursor.due(now, epoch) for partition, cursor in self.cursors.items()}

    def next_epoch(self) -> int:
        """A new number, for the cursors that are about to change."""
        self._epoch += 1
        return self._epoch

    def unsought(self) -> list[Partition]:
        """Assigned partitions that have to be sought."""
        return sorted(partition for partition, cursor in self.cursors.items() if cursor.state == "unsought")

    def epoch_of(self, partition: Partition) -> int | None:
        """The epoch of a partition's cursor; None if the partition is not assigned."""
        cursor = self.cursors.get(partition)
        return cursor.epoch if cursor else None

    def epochs(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The epochs of those `partitions` that are assigned."""
        return {partition: cursor.epoch for partition in partitions if (cursor := self.cursors.get(partition))}

    def changed(self, epochs: Mapping[Partition, int]) -> set[Partition]:
        """Those partitions whose cursor is not of the given epoch any more."""
        return {partition for partition, epoch in epochs.items() if self.epoch_of(partition) != epoch}

    def positions(self) -> dict[Partition, int]:
        """The next offset to apply, where it is known."""
        return {p: cursor.next_offset for p, cursor in self.cursors.items() if cursor.next_offset is not None}
