"""Sections as Markdown, in which no text of others can be anything but text. Pure."""

import json
import re
from collections.abc import Iterable, Iterator

from services.audit.bundle.cited import NOTHING, NULL, Cited
from services.audit.bundle.facts import Section

_EXACT = 2**53
_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&#@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""What could begin a format, a link, an entity, a heading or a mention."""


def section_lines(sections: Iterable[Section], level: str = "##") -> Iterator[str]:
    """Yield a heading and a table for each section that has a value or should have one."""
    for section in sections:
        if section.facts:
            yield from (f"{level} {section.title}", "", "| what | value | from |", "| --- | --- | --- |")
            yield from (f"| {plain(fact.name)} | {shown(fact.value)} | {origins(fact.value)} |" for fact in section.facts)
            yield ""


def shown(value: Cited) -> str:
    """Return a value as the text of a cell."""
    if value.value is None:
        return "none" if value.rule == NULL else NOTHING
    if isinstance(value.value, str):
        return plain(value.value)
    whole = isinstance(value.value, float) and value.value.is_integer() and abs(value.value) < _EXACT
    return plain(json.dumps(int(value.value) if whole else value.value, ensure_ascii=False, sort_keys=True))


def origins(value: Cited) -> str:
    """Return the records that a value comes from, and the rule by which it follows from them."""
    named = "<br>".join(f"`{_printable(origin).replace('`', '')}`" for origin in value.origins)
    said = named.replace("|", "\\|")
    return said if value.rule is None or value.value is None else f"{said}<br>{plain(value.rule)}"


def plain(text: str) -> str:
    """Return text on one line that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\g<0>", _printable(text))


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
