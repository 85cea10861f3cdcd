"""Checks that schema changes are compatible: older and newer releases must read all events, so only optional fields change.

It compares JSON Schemas of data on the wire. A change is compatible if readers of either release can read what writers of
the other send; any other change needs a new type with an upcaster.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

_WORDS_FOR_PEOPLE = frozenset({"title", "description", "examples", "deprecated", "$comment", "$schema", "$id", "$defs"})
_ALTERNATIVES = ("anyOf", "oneOf")
_WALKED = frozenset(
    {"$ref", "properties", "required", "items", "prefixItems", "additionalProperties", "propertyNames", "discriminator"}
    | set(_ALTERNATIVES)
)
"""Keywords that are compared in detail. Every other keyword, even an unknown one, is a bound that must not change."""
_NOTHING = "nothing"
_ENCODED = json.JSONEncoder(sort_keys=True).encode


class SchemaChange(NamedTuple):
    """One incompatible difference."""

    type: str
    field: str
    """Path of the field; empty for the data as a whole."""
    detail: str

    def __str__(self) -> str:
        where = f"{self.type}.{self.field}" if self.field else self.type
        return (
            f"{where}: {self.detail}; undo it, or make it a new type {self.type.partition('.')[0]}.v<n> with an upcaster "
            "(schemas/evolution/upcasting.py)"
        )


def incompatible(name: str, released: Schema, current: Schema) -> list[SchemaChange]:
    """Return the changes that readers or writers of one of the two schemas of event type `name` cannot handle."""
    return list(found(name, released, current))


def found(name: str, released: Schema, current: Schema) -> Iterator[SchemaChange]:
    """Yield what `incompatible` returns; whoever needs to know only whether there is a change stops at the first."""
    return _Comparison(name, released, current).compare("", released, current)


class _Comparison:
    def __init__(self, name: str, released: Schema, current: Schema) -> None:
        self._name = name
        self._released, self._current = released.get("$defs", {}), current.get("$defs", {})
        self._seen: set[tuple[str, str]] = set()

    def _change(self, path: str, detail: str) -> SchemaChange:
        return SchemaChange(self._name, path, detail)

    def compare(self, path: str, old: Schema, new: Schema) -> Iterator[SchemaChange]:
        """Yield the differences below `path`."""
        if "$ref" in old or "$ref" in new:
            pair = (_text(old), _text(new))  # with the keywords next to the reference, which apply, too
            if pair in self._seen:
                return
            self._seen.add(pair)
            old, new = _resolved(old, self._released), _resolved(new, self._current)
        if any(word in node for word in _ALTERNATIVES for node in (old, new)):
            yield from self._alternatives(path, old, new)
            return
        yield from self._bounds(path, old, new)
        yield from self._fields(path, old, new)
        yield from self._inner(path, old, new)

    def _bounds(self, path: str, old: Schema, new: Schema) -> Iterator[SchemaChange]:
        for bound in sorted({*old, *new} - _WORDS_FOR_PEOPLE - _WALKED):
            before, after = old.get(bound, _NOTHING), new.get(bound, _NOTHING)
            if bound == "default" and self._same_default(before, after, old, new):
                continue
            if _text(before) != _text(after):
                yield self._change(path, f"`{bound}` was {before!r} and is {after!r}")

    def _same_default(self, before: Any, after: Any, old: Schema, new: Schema) -> bool:
        """Return whether two defaults mean the same: a field that only one release knows has its own default in it."""
        old, new = _resolved(old, self._released), _resolved(new, self._current)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            fields, others = old.get("properties", {}), new.get("properties", {})
            gone, come = {*before} - {*after}, {*after} - {*before}
            return (
                all(name not in others and _text(before[name]) == _text(_default(fields.get(name))) for name in gone)
                and all(name not in fields and _text(after[name]) == _text(_default(others.get(name))) for name in come)
                and all(
                    self._same_default(before[name], after[name], fields.get(name, {}), others.get(name, {}))
                    for name in {*before} & {*after}
                )
            )
        if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            items = (old.get("items", {}), new.get("items", {}))
            return all(self._same_default(one, other, *items) for one, other in zip(before, after, strict=True))
        return _text(before) == _text(after)

    def _fields(self, path: str, old: Schema, new: Schema) -> Iterator[SchemaChange]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed_before, needed_after = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted({*before, *after}):
            where = f"{path}.{name}" if path else name
            if name not in after:
                if name in needed_before:
                    yield self._change(where, "the field was required and is removed")
            elif name not in before:
                if name in needed_after:
                    yield self._change(where, "the field is new and required")
            elif (name in needed_before) != (name in needed_after):
                yield self._change(where, f"the field {'is no longer' if name in needed_before else 'has become'} required")
            else:
                yield from self.compare(where, before[name], after[name])

    def _inner(self, path: str, old: Schema, new: Schema) -> Iterator[SchemaChange]:
        """Yield the differences in the items of lists and maps."""
        for keyword, sign in (("items", "[]"), ("additionalProperties", ".*"), ("propertyNames", ".*")):
            before, after = old.get(keyword), new.get(keyword)
            if isinstance(before, Mapping) and isinstance(after, Mapping):
                yield from self.compare(path + sign, before, after)
            elif before != after:
                yield self._change(path, f"`{keyword}` was {before!r} and is {after!r}")
        before, after = old.get("prefixItems", ()), new.get("prefixItems", ())
        if len(before) != len(after):
            yield self._change(path, f"the tuple had {len(before)} items and has {len(after)}")
        for number, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from self.compare(f"{path}[{number}]", one, other)

    def _alternatives(self, path: str, old: Schema, new: Schema) -> Iterator[SchemaChange]:
        yield from self._bounds(path, _beside(old), _beside(new))
        before, after = _by_name(_all_of(old), self._released), _by_name(_all_of(new), self._current)
        for name in sorted({*before, *after}):
            if name not in after:
                yield self._change(path, f"may no longer be {name}")
            elif name not in before:
                yield self._change(path, f"may now also be {name}")
            else:
                yield from self.compare(path, before[name], after[name])


def _resolved(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return the node with its reference resolved, together with the keywords next to the reference."""
    if "$ref" not in node:
        return node
    target = definitions[node["$ref"].rpartition("/")[2]]
    return {**target, **{word: value for word, value in node.items() if word != "$ref"}}


def _default(field: Schema | None) -> Any:
    return _NOTHING if field is None else field.get("default", _NOTHING)


def _beside(node: Schema) -> Schema:
    """Return the keywords that apply to all alternatives of a node; for a node without alternatives, only its default."""
    if any(word in node for word in _ALTERNATIVES):
        return node
    return {word: value for word, value in node.items() if word == "default"}


def _all_of(node: Schema) -> list[Schema]:
    alternatives = [one for word in _ALTERNATIVES for one in node.get(word, ())]
    return alternatives or [{word: value for word, value in node.items() if word != "default"}]


def _by_name(alternatives: list[Schema], definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return alternatives by their distinguishing name, or by their whole text if they share a name."""
    names = [_named(one, definitions) for one in alternatives]
    shared = Counter(names)
    return {
        name if shared[name] == 1 else f"{name}, {_text(_resolved(one, definitions))}": one
        for name, one in zip(names, alternatives, strict=True)
    }


def _text(node: Any) -> str:
    """Return text that is equal for equal JSON: the order of keys does not matter, and `true` is not 1."""
    return _ENCODED(node)


def _named(node: Schema, definitions: Mapping[str, Schema]) -> str:
    """Return the distinguishing name of an alternative: the constant of its discriminating field, or its type."""
    resolved = _resolved(node, definitions)
    for name, field in resolved.get("properties", {}).items():
        if "const" in field:
            return f"an object with {name} {field['const']!r}"
    if "const" in resolved:
        return f"{resolved['const']!r}"
    return f"of type {resolved.get('type', 'any')}"
