"""What is wrong with a bundle, or why there can be none, in words: the file, what was expected and what was found."""

from dataclasses import dataclass

_LONGEST = 300


class BundleRefused(Exception):
    """A bundle cannot be written; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a bundle and what it must be."""

    file: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: expected {_brief(self.expected)}, found {_brief(self.found)}"


class Differs(Exception):
    """A file of a bundle is not what it must be."""

    def __init__(self, file: str, expected: str, found: str) -> None:
        self.difference = Difference(file, expected, found)
        super().__init__(str(self.difference))


def _brief(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
