"""What the databases in memory and the services' start keep to; a variant leaves one of them out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Everything is kept by default."""

    row_locks: bool = True
    """Touched rows are locked."""
    position_locks: bool = True
    """The positions of a batch are locked."""
    restores: bool = True
    """A service with a new database folds its log before it decides."""


SOUND = Rules()
