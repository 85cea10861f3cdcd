"""Finds parts of JSON Schemas and of documents that contain them."""

from collections.abc import Iterator
from typing import Any

_LOST = frozenset({"ge", "gt", "le", "lt"})


def objects_in(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a document."""
    if isinstance(node, dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from objects_in(part)


def lost_bounds(document: Any) -> list[dict[str, Any]]:
    """Return the numbers whose bounds have pydantic's names, which no reader of JSON Schema knows."""
    return [found for found in objects_in(document) if found.get("type") in ("number", "integer") and _LOST & found.keys()]
