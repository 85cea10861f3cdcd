"""Finds the number that an answer ends with, for tasks like GSM8K, whose references end with `#### 42`."""

import re
from decimal import Decimal

_MARK = "####"
_NUMBER = re.compile(
    r"(?:(?<![\w)\]])[-\u2212+])?"  # a sign, unless it subtracts, as in 5-3
    r"[$\u20ac\u00a3]?"
    r"((?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE]([-+]?[0-9]{1,3}))?"
)


def final_number(text: str) -> Decimal | None:
    """Return the number behind the last `####`, or else the last number of the text; None if there is none.

    Commas between thousands and a currency sign are left out; a sign before the number counts. Fractions are not computed:
    the number of `1/2` is 2.
    """
    _, mark, behind = text.rpartition(_MARK)
    if mark and (first := _NUMBER.search(behind)):
        return _value(first)
    found = list(_NUMBER.finditer(text))
    return _value(found[-1]) if found else None


def _value(found: re.Match[str]) -> Decimal:
    value = Decimal(found[1].replace(",", "") + (f"e{found[2]}" if found[2] else ""))
    return -value if found[0][0] in "-\u2212" else value
