"""How long what serves elsewhere may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds after which it counts as not answering."""

    look: float = 5.0
    load: float = 300.0
    answer: float = 300.0
    between: float = 2.0
    """Between two looks at it."""
    misses: int = 3
    """Looks in a row that may fail."""
