"""Collects the findings of a verification: all are counted, but only the first are kept, since there may be millions."""

from dataclasses import dataclass, field

SHOWN_FINDINGS = 100


@dataclass
class ExportFindings:
    """Counts all findings and keeps the first."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Add one finding."""
        self.count += 1
        if len(self.shown) < SHOWN_FINDINGS:
            self.shown.append(text)
