"""Makes text of others harmless in a page: no markup, no secrets, no control characters, no change of direction."""

import re
from html import escape

from services.chassis.executor.text import storable

_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Signs that change the direction of the text around them."""


def safe(text: str) -> str:
    """Return the text as HTML, for elements and attributes."""
    return escape(_DIRECTIONS.sub("\N{REPLACEMENT CHARACTER}", storable(text)))


def brief(text: str, limit: int) -> str:
    """Return at most `limit` characters of the text, with a mark where it was cut."""
    return text if len(text) <= limit else text[:limit].rstrip() + " …"


def ending(text: str, limit: int) -> str:
    """Return the last characters of the text, at most `limit`, with a mark where it was cut."""
    return text if len(text) <= limit else "… " + text[-limit:].lstrip()
