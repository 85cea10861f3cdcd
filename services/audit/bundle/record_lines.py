"""The records of a bundle, `records.jsonl`: each with its bytes, its place in the tree of its partition, and its proof.

Only one spelling of a line is valid, so a line that was changed in any way is found, whatever a JSON parser makes of it.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from schemas.base import Frozen
from services.audit.bundle.cited import canonical
from services.audit.bundle.faults import Differs
from services.audit.leaf import RawRecord, leaf_bytes
from services.audit.merkle import leaf_hash, root_of_path, siblings
from services.chassis.kernel.records import name_kept, name_of_kept

RECORDS = "records.jsonl"
LINE_BYTES = 8 * 2**20
"""The longest line; a value that the services read has 4 MiB at the most."""
LINES = 20_000
"""The most records."""
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_OFFSET = 2**62


class ProvenRecord(NamedTuple):
    """A record and where it is in the tree of its partition."""

    record: RawRecord
    leaf: int
    path: tuple[str, ...]
    """The hashes of the siblings from the leaf up to the root."""

    @property
    def place(self) -> str:
        """The record as citations name it."""
        return place(self.record.topic, self.record.partition, self.record.offset)

    def root(self, size: int) -> str | None:
        """Return the root to which the proof leads in a tree of `size` leaves; None if it is no proof in such a tree."""
        path = siblings(self.leaf, size, self.path)
        return None if path is None else root_of_path(leaf_hash(leaf_bytes(self.record)), path).hex()


class _Line(Frozen):
    topic: str = Field(max_length=249)
    partition: int = Field(ge=0, lt=2**31)
    offset: int = Field(ge=0, lt=_OFFSET)
    timestamp: int = Field(ge=-_OFFSET, lt=_OFFSET)
    key: str | None
    headers: list[tuple[str, str | None]] = Field(max_length=10_000)
    value: str | None
    leaf: int = Field(ge=0, lt=_OFFSET)
    path: list[_Hash] = Field(max_length=64)


def place(topic: str, partition: int, offset: int) -> str:
    """Return how a record is cited."""
    return f"{topic}[{partition}]@{offset}"


def lines(records: Iterable[ProvenRecord]) -> bytes:
    """Return the file with these records."""
    return b"".join(map(_line, records))


def _line(proven: ProvenRecord) -> bytes:
    record = proven.record
    known = {
        **record._asdict(),
        "key": _text(record.key),
        "value": _text(record.value),
        "headers": [[name_kept(name), _text(value)] for name, value in record.headers],
    }
    return canonical({**known, "leaf": proven.leaf, "path": proven.path}) + b"\n"


def record_in(line: bytes, number: int) -> ProvenRecord:
    """Return the record of a line. Raises Differs."""
    where = f"{RECORDS} line {number}"
    try:
        known = _Line.model_validate_json(line)
        record = RawRecord(
            known.topic,
            known.partition,
            known.offset,
            known.timestamp,
            _raw(known.key),
            _raw(known.value),
            tuple((name_of_kept(name), _raw(value)) for name, value in known.headers),
        )
        found = ProvenRecord(record, known.leaf, tuple(known.path))
        written = _line(found)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        said = f"{'.'.join(map(str, fault['loc'])) or 'a line'}: {fault['msg']}"
        raise Differs(where, "a record with its proof", said) from None
    except (ValueError, binascii.Error) as error:
        raise Differs(where, "a record with its proof", str(error)) from None
    if written != line:
        raise Differs(where, "the one spelling of this record", "another one")
    return found


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


def _raw(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
