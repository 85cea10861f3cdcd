"""What a verification finds is counted whole and kept in part: an export may be wrong in a million places."""

from dataclasses import dataclass, field

SHOWN_FINDINGS = 100


@dataclass
class Findings:
    """All are counted, the first are kept."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """One more."""
        self.count += 1
        if len(self.shown) < SHOWN_FINDINGS:
            self.shown.append(text)
