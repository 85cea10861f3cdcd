"""Collects the checks of a bundle and the differences that they find."""

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

from pydantic import Field

from schemas.base import Frozen
from services.audit.bundle.faults import Difference, Differs

SHOWN = 100
"""The most differences that are kept; a hostile bundle may have millions."""

_Value = TypeVar("_Value")


class Check(Frozen):
    """The result of one check."""

    name: str
    verdict: Literal["holds", "differs", "open"] = Field(description="open: nothing is wrong, and nothing is proved.")
    said: str


class Examination:
    """The checks of one bundle so far."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.differences: list[Difference] = []
        self.count = 0

    def read(self, name: str, read: Callable[[], _Value], said: Callable[[_Value], str]) -> _Value | None:
        """Return what `read` returns, or None if it raises Differs; `said` tells in words what holds."""
        try:
            value = read()
        except Differs as error:
            self._differs(name, [error.difference])
            return None
        self.checks.append(Check(name=name, verdict="holds", said=said(value)))
        return value

    def compare(self, name: str, differences: Iterable[Difference], said: str) -> None:
        """Add a check that yields its differences; `said` tells in words what holds without any."""
        found = list(differences)
        if found:
            self._differs(name, found)
        else:
            self.checks.append(Check(name=name, verdict="holds", said=said))

    def leave_open(self, name: str, said: str) -> None:
        """Tell what is not proved."""
        self.checks.append(Check(name=name, verdict="open", said=said))

    def _differs(self, name: str, found: list[Difference]) -> None:
        self.count += len(found)
        self.differences += found[: max(0, SHOWN - len(self.differences))]
        words = "1 difference" if len(found) == 1 else f"{len(found)} differences"
        self.checks.append(Check(name=name, verdict="differs", said=words))
