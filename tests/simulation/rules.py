"""What the databases in memory and the services' start keep to; a variant leaves one of them out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Everything is kept by default."""

    row_locks: bool = True
    """Touched rows are locked."""
    position_locks: bool = True
    """The positions of a batch are locked."""
    waits_from_receipt: bool = True
    """The wait before a retry is counted from receipt, not read as a moment of the orchestrator's clock."""
    window_of_the_log: bool = True
    """How long a duplicate is known as one is told by append times, not by the reader's clock."""
    restores: bool = True
    """A service with a new database folds its log before it decides."""


SOUND = Rules()
