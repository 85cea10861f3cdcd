"""Turns tokens into text while an answer grows: what was said is never taken back, and the parts together are the whole answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_INCOMPLETE = "\ufffd"
"""What a decoder writes for the first bytes of a character."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """How tokens become the text of an answer."""

    said: Callable[[Sequence[int]], str]
    """Decodes tokens."""
    bare: Callable[[str], str]
    """Removes what surrounds an answer."""
    around: tuple[str, str]
    """What may surround an answer, before and behind it."""

    def whole(self, ids: Sequence[int]) -> str:
        """Return the text of a whole answer."""
        return self.bare(self.said(ids))


class GrowingText:
    """The text of one answer, token by token."""

    def __init__(self, form: TextForm, stops: Sequence[str]) -> None:
        self._form, self._stops = form, tuple(stops)
        self._ids: list[int] = []
        self._prefix = self._read = 0
        self._before = self._raw = self._told = ""
        self.stopped = False
        """Whether a stop sequence was said; it is no part of the text, and ends it."""

    def add(self, token: int) -> str:
        """Take the next token; return what can be told for good, which may be nothing."""
        self._ids.append(token)
        now = self._form.said(self._ids[self._prefix :])
        if now.endswith(_INCOMPLETE):
            return ""
        known = len(self._raw)
        self._raw += now[len(self._before) :]
        self._prefix, self._read = self._read, len(self._ids)
        self._before = self._form.said(self._ids[self._prefix : self._read])
        self._stop(known)
        return self._tell(self._raw, settled=self.stopped)

    def end(self) -> str:
        """Return what is left to tell when no token follows."""
        if self.stopped:
            return ""
        self._raw = self._form.said(self._ids)
        self._stop(0)
        return self._tell(self._raw, settled=True)

    @property
    def told(self) -> str:
        """All that was returned."""
        return self._told

    def _stop(self, known: int) -> None:
        longest = max(map(len, self._stops), default=0)
        found = [place for stop in self._stops if (place := self._raw.find(stop, max(0, known - longest))) >= 0]
        if found:
            self._raw, self.stopped = self._raw[: min(found)], True

    def _tell(self, raw: str, *, settled: bool) -> str:
        lead, end = self._form.around
        if not settled and lead.startswith(raw.strip()):
            return ""
        text = self._form.bare(raw)
        if not settled:
            text = self._form.bare(text[: len(text) - _held(text, (*self._stops, end))])
        new = text.removeprefix(self._told) if text.startswith(self._told) else ""
        self._told += new
        return new


def _held(text: str, marks: Sequence[str]) -> int:
    """Return how many characters at the end of a text may begin one of the marks."""
    longest = min(len(text), max(map(len, marks)) - 1)
    return next((size for size in range(longest, 0, -1) if any(mark.startswith(text[-size:]) for mark in marks)), 0)
