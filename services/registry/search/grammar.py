"""Reads a filter by recursive descent:

    filter     = all { OR all }
    all        = one { AND one }
    one        = NOT one | "(" filter ")" | comparison
    comparison = column ( = | != | < | <= | > | >= ) value
               | column [NOT] LIKE text | column [NOT] IN "(" value { "," value } ")" | column IS [NOT] NULL

A comparison with a column that has no value is neither true nor false, as in SQL, so NOT does not make it true.
"""

from collections.abc import Callable, Sequence

from services.chassis.serving.paging import Search
from services.registry.search.columns import COMPARISONS, INDEXED, TIME, Condition, absent, among, column_of, comparison
from services.registry.search.tokens import END, FilterFault, Token, tokens

DEEPEST = 20
"""How deep parentheses and NOT may be nested."""


def search_of(text: str) -> Search:
    """Return the search that a filter asks for. Raises FilterFault.

    Of the comparisons that must all be true, those with a time and one that an index serves narrow the search.
    """
    found = condition_of(text)
    parts = found.conjuncts or (found,)
    led = min((part.narrows for part in parts if part.narrows in INDEXED), key=INDEXED.index, default="")
    narrowing = [part for part in parts if part.narrows == TIME]
    narrowing += [part for part in parts if led and part.narrows == led][:1]
    return Search(
        tuple(part.sql for part in narrowing),
        found.sql,
        (*(value for part in narrowing for value in part.values), *found.values),
    )


def names_column(text: str, column: str) -> bool:
    """Return whether a filter asks for a column by its name. Raises FilterFault."""
    return any(token.kind == "name" and token.text == column for token in tokens(text))


def condition_of(text: str) -> Condition:
    """Return the condition that a filter says. Raises FilterFault."""
    reading = _Reading(tokens(text))
    found = reading.any_of(0)
    if reading.next.kind != END:
        raise FilterFault(reading.next, "the filter should end, or go on with AND or OR", "join comparisons with AND or OR")
    return found


class _Reading:
    """The tokens of a filter that are left to read."""

    def __init__(self, found: Sequence[Token]) -> None:
        self._left = list(reversed(found))

    @property
    def next(self) -> Token:
        return self._left[-1]

    def any_of(self, depth: int) -> Condition:
        parts = self._joined("OR", self._all_of, depth)
        return parts[0] if len(parts) == 1 else _joined(" OR ", parts)

    def _all_of(self, depth: int) -> Condition:
        parts = self._joined("AND", self._one, depth)
        if len(parts) == 1:
            return parts[0]
        flat = tuple(inner for part in parts for inner in part.conjuncts or (part,))
        return _joined(" AND ", flat)._replace(conjuncts=flat)

    def _joined(self, word: str, read: Callable[[int], Condition], depth: int) -> list[Condition]:
        parts = [read(depth)]
        while self._skip(word):
            parts.append(read(depth))
        return parts

    def _one(self, depth: int) -> Condition:
        if depth > DEEPEST:
            raise FilterFault(self.next, f"parentheses and NOT are nested over {DEEPEST} deep", "use a simpler filter")
        if self._skip("NOT"):
            return _not(self._one(depth + 1))
        if not self._skip("("):
            return self._comparison()
        inner = self.any_of(depth + 1)
        self._expect(")", "a parenthesis is not closed")
        return inner

    def _comparison(self) -> Condition:
        name = self._take()
        column, negated = column_of(name), self._skip("NOT")
        sign = self._take()
        if sign.text in COMPARISONS and not negated:
            return comparison(column, name, sign, self._take())
        match sign.word:
            case "LIKE":
                found = comparison(column, name, sign, self._take())
            case "IN":
                found = among(column, name, self._values())
            case "IS" if not negated:
                negated = self._skip("NOT")
                self._expect("NULL", "only NULL can follow IS")
                found = absent(column)
            case _:
                message = f"an operator must follow the column {name.text}"
                raise FilterFault(sign, message, f"use one of {', '.join(COMPARISONS)}, LIKE, IN, IS")
        return _not(found) if negated else found

    def _values(self) -> list[Token]:
        self._expect("(", "a list in parentheses must follow IN")
        values = [self._take()]
        while self._skip(","):
            values.append(self._take())
        self._expect(")", "the list of IN is not closed")
        return values

    def _take(self) -> Token:
        return self._left.pop() if self.next.kind != END else self.next

    def _skip(self, word: str) -> bool:
        if self.next.word != word:
            return False
        self._left.pop()
        return True

    def _expect(self, word: str, message: str) -> None:
        if not self._skip(word):
            raise FilterFault(self.next, message, f"write {word} here")


def _joined(word: str, parts: Sequence[Condition]) -> Condition:
    return Condition(f"({word.join(part.sql for part in parts)})", tuple(value for part in parts for value in part.values))


def _not(condition: Condition) -> Condition:
    return Condition(f"(NOT {condition.sql})", condition.values)
