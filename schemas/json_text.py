"""Parses JSON from outside: bounded before parsing, cleaned of what databases cannot store, with every fault named."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import from_json

from schemas.reasons import Reason, shortened

READ_BYTES = 4 * 2**20
"""The most bytes of a record that are read; a larger record is not parsed."""
BATCH_BYTES = 32 * 2**20
"""The most bytes that a batch of records may decompress to."""
MOST_HEADERS = 500
"""The most headers of a record; one with more is not read."""
BATCH_RECORDS = 100_000
"""The most records of a batch: a few kilobytes of gzip can be millions."""
DEPTH_LIMIT = 64
"""The most levels of objects and lists in data: deeper data could be read here and break a later reader."""
_PLAIN_PARTS = 1000
"""The most objects and lists of a value that is parsed quickly; the plan of a job has some hundred."""
FAULTS_AT_MOST = 50
"""The most faults of one request that are named: they are stored, and must fit into a record."""
_LONGEST_INTEGER = 300
"""The most digits of an integer; Python and other JSON parsers refuse numbers far longer than a double."""
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SIGNS = bytes.maketrans(b"0123456789E+\t\n\r", b"0000000000e-   ")
"""Maps digits, exponents, signs and blanks to one character each, so that text can be searched without a pattern."""
_EXPONENT = re.compile("0e[0-]")
"""Matches what may be a digit, an exponent and its digit or sign; hexadecimal ids contain many."""
_CANDIDATES = 10_000
"""Checking more matches takes longer than careful parsing; only a hostile record has as many."""
_MANY_DIGITS = "0" * 300
_FAR = 2 * len(_MANY_DIGITS)
"""A number with this many characters before its exponent may have any magnitude."""
_CONFLUENT_HEAD = 5
"""Length of the zero byte and schema number that Confluent's serializers put before the JSON."""
_NAMED = 10
DECISIVE = frozenset({"job_id", "type", "data", "data_base64"})
"""Names that decide what an event is and which job it concerns: with two different values nobody knows what is meant."""


class NoJson(ValueError):
    """The bytes are not JSON, or too many."""


class Parsed(NamedTuple):
    """The result of parsing JSON text."""

    value: object
    plain: bool
    """Whether nothing in it can need cleaning, as found without walking through it."""
    doubled: tuple[str, ...] = ()
    """Names that occur twice in one object, if that was requested."""
    contradictions: Sequence[tuple[Mapping[str, object], str]] = ()
    """The objects in which a name of DECISIVE occurs with different values, and that name."""
    parts: int = 0
    """An upper bound of the objects and lists in it."""
    deep: bool = False
    """Whether a part of it was too deep to be read, and is null here."""

    def contradicting(self, whole: object) -> frozenset[str]:
        """Return the names of DECISIVE that occur with different values in `whole` itself, an object of this value."""
        return frozenset(name for found, name in self.contradictions if found is whole)


def parse(text: bytes, *, doubled: bool = False) -> Parsed:
    """Parse JSON. Raises NoJson.

    `doubled` is for outsiders' data: names that occur twice in an object, of which JSON keeps the last, are noted, and NaN
    and infinities are accepted, so that both can be reported to the sender.
    """
    if len(text) > READ_BYTES:
        raise NoJson(
            f"the value has {len(text)} bytes, and up to {READ_BYTES} are read; send references to data instead of the data"
        )
    if found := parse_plain(text, doubled=doubled):
        return found
    twice = _Twice() if doubled else None
    parts = _parts(text)
    try:
        if parts <= DEPTH_LIMIT and (clean := _clean(text)) is not None:
            try:
                return _read(clean, _PLAIN, twice, plain=True, parts=parts)
            except _Boundless:
                twice = twice and _Twice()
        if text[:1] == b"\x00" and text[_CONFLUENT_HEAD : _CONFLUENT_HEAD + 1] == b"{":
            text = text[_CONFLUENT_HEAD:]
        decoded = text.decode(json.detect_encoding(text), "surrogatepass")
        return _read(decoded, _ANY, twice, plain=False, parts=parts)
    except RecursionError as error:
        if doubled and (flat := _flattened(text)) != text:
            return parse(flat, doubled=True)._replace(parts=parts, deep=True)
        raise NoJson(f"the value is JSON that cannot be read ({error}); send flatter JSON") from None
    except ValueError as error:
        raise NoJson(f"the value is not JSON ({error}); send UTF-8 JSON") from None


def _parts(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def _clean(text: bytes) -> str | None:
    """Return UTF-8 text without NUL, lone surrogates and byte order mark; None if it may have one, or has another
    encoding."""
    try:
        said = text.decode()
    except UnicodeDecodeError:
        return None
    return None if "\\u" in said or "\x00" in said or said.startswith("\ufeff") else said


def parse_plain(text: bytes, *, doubled: bool = False) -> Parsed | None:
    """Return the result of `parse` for plain JSON, found quickly; None if a fault is possible, so that `parse` must
    decide."""
    parts = _parts(text)
    if len(text) > READ_BYTES or parts > _PLAIN_PARTS or (clean := _clean(text)) is None:
        return None
    signs = text.translate(_SIGNS).decode("latin-1")
    if _MANY_DIGITS in signs or _may_have_an_exponent(signs):
        return None  # a number may exceed a double
    try:
        value = from_json(clean, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return None
    if parts > DEPTH_LIMIT and _deeper(value, DEPTH_LIMIT):
        return None
    if doubled and (" :" in signs or clean.count('":') != _names(value, parts)):
        return None  # each name is followed by ": and one may occur twice
    return Parsed(value, True, (), (), parts)


def _may_have_an_exponent(signs: str) -> bool:
    """Return whether a number with an exponent is, or may be, a JSON value; after _CANDIDATES matches this is assumed."""
    found = enumerate(_EXPONENT.finditer(signs), 1)
    return any(number > _CANDIDATES or _begins_a_value(signs, candidate.start()) for number, candidate in found)


def _begins_a_value(signs: str, digit: int) -> bool:
    """Return whether the number to which this digit belongs may be a JSON value, rather than a part of a text."""
    before = signs[max(0, digit - _FAR) : digit].rstrip("0.-")
    return not before or before[-1] in "[:, "


def _deeper(value: object, levels: int) -> bool:
    """Return whether objects and lists are nested in more than `levels` levels."""
    if not isinstance(value, dict | list):
        return False
    within = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(held, levels - 1) for held in within if isinstance(held, dict | list))


def _names(value: object, parts: int) -> int:
    """Return the number of names in all objects of a value with at most `parts` parts and DEPTH_LIMIT levels."""
    if not isinstance(value, dict | list):
        return 0
    names, within = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    return names if parts == 1 else names + sum(_names(held, parts) for held in within if isinstance(held, dict | list))


def _read(text: str, usual: json.JSONDecoder, twice: "_Twice | None", *, plain: bool, parts: int) -> Parsed:
    value = _decoder(usual, twice).decode(text)
    return Parsed(value, plain, tuple(twice.names) if twice else (), twice.contradictions if twice else (), parts)


def _flattened(text: bytes) -> bytes:
    """Return the JSON with null in place of everything that is too deep to be read."""
    parts, depth, at = list[bytes](), 0, 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        if sign in (b"[", b"{"):
            depth += 1
            if depth == DEPTH_LIMIT + 1:
                parts += [text[at : token.start()], b"null"]
        elif sign in (b"]", b"}"):
            if depth == DEPTH_LIMIT + 1:
                at = token.end()
            depth -= 1
    return b"".join([*parts, text[at:]]) if depth <= DEPTH_LIMIT else text


def storable(value: Any, path: str, faults: list[Reason], depth: int = 0) -> Any:
    """Return `value` without parts that cannot be stored as JSON: NUL, lone surrogates, numbers beyond a double, too deep
    nesting."""
    match value:
        case str() if UNSTORABLE.search(value):
            _note(faults, path, value, "text holds a NUL or a lone surrogate", "send valid Unicode text")
            return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
        case float() if not math.isfinite(value):
            _note(faults, path, value, "the number is not valid JSON, or beyond a double", "send a finite number")
            return None
        case dict() | list() if depth == DEPTH_LIMIT:
            _note(faults, path, "...", f"the value is nested deeper than {DEPTH_LIMIT} levels", "send flatter JSON")
            return None
        case dict():
            return {
                storable(k, f"{path}.{k!a}", faults): storable(v, f"{path}.{k}".lstrip("."), faults, depth + 1)
                for k, v in value.items()
            }
        case list():
            return [storable(item, f"{path}.{index}", faults, depth + 1) for index, item in enumerate(value)]
    return value


def _note(faults: list[Reason], path: str, value: object, message: str, remedy: str) -> None:
    if len(faults) < FAULTS_AT_MOST:
        field = shortened(ascii(path.lstrip("."))[1:-1], 200)
        faults.append(Reason(field=field, value=shortened(ascii(value), 200), message=message, remedy=remedy))


class _Boundless(Exception):
    """The number does not fit into a double."""


def _boundless(_name: str) -> object:
    raise _Boundless


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def _bounded_integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise _Boundless
    return int(digits)


def _bounded_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Boundless
    return number


_PLAIN_NUMBERS: Mapping[str, Any] = {
    "parse_constant": _no_constant, "parse_int": _bounded_integer, "parse_float": _bounded_float
}  # fmt: skip
_ANY_NUMBERS: Mapping[str, Any] = {"parse_constant": _no_constant, "parse_int": _integer}
_PLAIN = json.JSONDecoder(**_PLAIN_NUMBERS)
_ANY = json.JSONDecoder(**_ANY_NUMBERS)


@dataclass(slots=True)
class _Twice:
    """Collects names that occur twice in an object."""

    names: list[str] = field(default_factory=list)
    contradictions: list[tuple[Mapping[str, object], str]] = field(default_factory=list)

    def look(self, pairs: list[tuple[str, Any]], kept: Mapping[str, Any]) -> None:
        """Note the names that occur twice in `pairs`, and the decisive ones whose values differ from the one that JSON keeps."""
        seen: set[str] = set()
        for name, _value in pairs:
            if name in seen and len(self.names) < _NAMED:
                self.names.append(name)
            seen.add(name)
        differing = {name for name, value in pairs if name in DECISIVE and kept[name] != value}
        self.contradictions += [(kept, name) for name in sorted(differing)]


def _decoder(usual: json.JSONDecoder, twice: _Twice | None) -> json.JSONDecoder:
    """Return the usual decoder, or one for outsiders' data, which notes names that occur twice and accepts Python's NaN."""
    if twice is None:
        return usual

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.look(pairs, found)
        return found

    numbers = (
        {**_PLAIN_NUMBERS, "parse_constant": _boundless} if usual is _PLAIN else {**_ANY_NUMBERS, "parse_constant": float}
    )
    return json.JSONDecoder(object_pairs_hook=noted, **numbers)
