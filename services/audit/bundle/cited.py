"""Values that know which records they come from, and documents made of such values. Pure.

A document is a tree of mappings, sequences, constants of the format and `Cited` values. What no record has is left out of the
document, and its citations are found by JSON pointer (RFC 6901).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class Cited:
    """A value and its origins, such as `neuroweaver.models[4]@12#/artifact/sha256`; None is what no record has."""

    value: Any
    origins: tuple[str, ...]
    rule: str | None = None
    """How the value follows from its origins; None if it is what the record says."""

    def by(self, rule: str, value: Any) -> "Cited":
        """Return a value that follows from this one by a rule; None follows from None."""
        return Cited(None if self.value is None else value, self.origins, rule)


NULL = "null in the record"
"""The rule of a value that a record has, and that is null there."""
NOT_RECORDED = Cited(None, ())
NOTHING = "not recorded"
"""What documents show of a value that no record has."""

Tree: TypeAlias = "Cited | Mapping[str, Tree] | Sequence[Tree] | str | int | float | bool | None"
Citations = dict[str, dict[str, JsonValue]]
"""For each JSON pointer of a document where its value comes from."""


class _Absent:
    pass


_ABSENT = _Absent()


def document(tree: Tree) -> tuple[Any, Citations]:
    """Return the plain values of a tree and their citations. A mapping or sequence of which nothing is recorded stays, empty."""
    citations: Citations = {}
    return _plain(tree, "", citations), citations


def _plain(tree: Tree, pointer: str, citations: Citations) -> Any:
    if isinstance(tree, Cited):
        if tree.value is None:
            return _ABSENT
        citations[pointer] = cited(tree)
        return tree.value
    if isinstance(tree, Mapping):
        found = ((name, _plain(part, f"{pointer}/{escaped(name)}", citations)) for name, part in tree.items())
        return {name: value for name, value in found if value is not _ABSENT}
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        kept = [part for part in tree if not (isinstance(part, Cited) and part.value is None)]
        return [_plain(part, f"{pointer}/{number}", citations) for number, part in enumerate(kept)]
    return tree


def cited(value: Cited) -> dict[str, JsonValue]:
    """Return origins and rule of a value as JSON."""
    found: dict[str, JsonValue] = {"from": list(value.origins)}
    return found if value.rule is None else {**found, "rule": value.rule}


def escaped(name: str) -> str:
    """Return a name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def canonical(value: object) -> bytes:
    """Return JSON with sorted names, without spaces, in UTF-8: equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def readable(value: object) -> bytes:
    """Return JSON that people read, which is as determined as the canonical one."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
