"""Counts the rows that cannot be learnt from, by kind and with examples of their positions, and refuses too many of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.reasons import Reason
from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.trainer.data.columns import RowFault

_REASONS_AT_MOST = 10
_PLACES_AT_MOST = 3
_NAMES = {"dataset.reference": "unreadable", "dataset.columns": "chat"}
_ONE_OF = 10
"""Of more rows than this, one may be bad."""


@dataclass
class Places:
    """How many rows, and the positions of the first ones."""

    number: int = 0
    first: list[str] = field(default_factory=list)

    def note(self, place: str) -> None:
        """Count a row at a position."""
        self.number += 1
        if len(self.first) < _PLACES_AT_MOST:
            self.first.append(place)

    def __str__(self) -> str:
        more = f" and {self.number - len(self.first)} more" if self.number > len(self.first) else ""
        return ", ".join(self.first) + more


class BadRows:
    """The bad rows of a data set: rows with equal faults are one kind, in the order of their first rows."""

    def __init__(self, settings: DatasetSettings) -> None:
        self._settings = settings
        self._kinds: dict[tuple[str, str, str], Places] = {}

    def note(self, place: str, fault: RowFault) -> None:
        """Count a bad row."""
        self._kinds.setdefault((fault.field, fault.message, fault.remedy), Places()).note(place)

    @property
    def number(self) -> int:
        """The number of bad rows."""
        return sum(places.number for places in self._kinds.values())

    def refuse_too_many(self, rows: int) -> None:
        """Raise UserFault with every kind of fault if more of `rows` rows are bad than are to be left out."""
        limit = self._allowed(rows)
        if self.number > limit:
            raise UserFault(*self._reasons(rows, limit))

    def notes(self) -> list[str]:
        """Say in one sentence for each kind which rows are left out."""
        return [
            f"{rows_are(places.number)} left out: {message} ({places})"
            for (_, message, _), places in list(self._kinds.items())[:_REASONS_AT_MOST]
        ]

    def metrics(self) -> dict[str, float]:
        """Return the number of bad rows by what is wrong: a column, the chat, the length, or that a row is unreadable."""
        counts: Counter[str] = Counter()
        for (where, _, _), places in self._kinds.items():
            counts[f"rows_bad_{_NAMES.get(where, where.rpartition('.')[2])}"] += places.number
        return {name: float(number) for name, number in sorted(counts.items())}

    def _allowed(self, rows: int) -> int:
        if self._settings.on_bad_row == "refuse" or not self._settings.bad_rows_limit:
            return 0
        return max(int(rows * self._settings.bad_rows_limit), int(rows > _ONE_OF))

    def _reasons(self, rows: int, limit: int) -> Sequence[Reason]:
        reasons = [
            Reason(field=where, value=str(places), message=message, remedy=remedy)
            for (where, message, remedy), places in list(self._kinds.items())[:_REASONS_AT_MOST]
        ]
        if limit and self.number < rows:
            share = f"{self.number} of {rows} rows are bad, and at most {limit} are left out"
            reasons.append(
                Reason(
                    field="dataset.bad_rows_limit", value=str(self._settings.bad_rows_limit), message=share,
                    remedy="correct the rows, or raise dataset.bad_rows_limit",
                )
            )  # fmt: skip
        return reasons


def rows_are(number: int) -> str:
    """Return the beginning of a sentence about a number of rows."""
    return "1 row is" if number == 1 else f"{number} rows are"
