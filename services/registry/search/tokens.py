"""Splits a filter into tokens, each with its place; a fault names place and token."""

import re
from typing import NamedTuple

from schemas.reasons import Reason, shown

FIELD = "query.filter"
MOST_TOKENS = 400
"""The most tokens of a filter."""
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.(?:"(?:[^"]|"")+"|[A-Za-z0-9_@./:-]+))?)
    | (?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<sign><=|>=|!=|=|<|>|\(|\)|,)""",
    re.VERBOSE,
)
END = "end"


class Token(NamedTuple):
    """One token of a filter."""

    kind: str
    """text, name, number, sign, or end."""
    text: str
    at: int
    """Its first character, counted from 1."""

    @property
    def word(self) -> str:
        """The token in capitals if it is a name, for keywords; else as it is."""
        return self.text.upper() if self.kind == "name" else self.text


class FilterFault(Exception):
    """A filter cannot be read; the caller gets the reason."""

    def __init__(self, token: Token, message: str, remedy: str) -> None:
        value = shown(token.text) if token.kind != END else None
        where = "at the end" if token.kind == END else f"at character {token.at}"
        self.reason = Reason(field=FIELD, value=value, message=f"{where}, {message}", remedy=remedy)
        super().__init__(str(self.reason))


def tokens(text: str) -> list[Token]:
    """Return the tokens of a filter and the end. Raises FilterFault."""
    found, at = list[Token](), _after_space(text, 0)
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None and text[at] in "'\"":
            raise FilterFault(
                Token("sign", text[at], at + 1), "a quotation does not end, or begins where none can", _QUOTES
            )
        found.append(Token(str(match.lastgroup), match.group(), at + 1) if match else Token("sign", text[at], at + 1))
        if len(found) > MOST_TOKENS:
            raise FilterFault(found[-1], f"the filter has over {MOST_TOKENS} words and signs", "use a shorter filter")
        at = _after_space(text, at + len(found[-1].text))
    return [*found, Token(END, "", len(text) + 1)]


_QUOTES = "write texts in single quotes, and a single quote in a text twice: name = 'support-router'"


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
