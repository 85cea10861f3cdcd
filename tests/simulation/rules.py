"""What the databases in memory and the services' start keep to; a variant leaves one of them out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """The rules that hold in a run; all of them by default."""

    row_locks: bool = True
    """Whether touched rows are locked."""
    position_locks: bool = True
    """Whether the positions of a batch are locked."""
    waits_from_receipt: bool = True
    """Whether the wait before a retry is counted from receipt, instead of being a time of the orchestrator's clock."""
    window_of_the_log: bool = True
    """Whether the window of duplicates uses append times instead of the reader's clock."""
    restores: bool = True
    """Whether a service with a new database folds its log before it decides."""


SOUND = Rules()
