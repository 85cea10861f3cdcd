"""Reads and writes records as Parquet: the bytes that Kafka stores, and columns decoded from the envelope beside them.

Only this module uses pyarrow, which comes with the extra `audit` and is imported when it is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from services.audit.leaf import RawRecord, leaf_bytes
from services.audit.merkle import leaf_hash
from services.audit.raw_envelope import RawEnvelope, read_envelope
from services.chassis.kernel.records import name_kept, name_of_kept
from services.chassis.storage.durable import replacing

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 1000
_ENVELOPE = tuple(field.name for field in fields(RawEnvelope))


class NoPyarrow(Exception):
    """The extra `audit` is not installed."""


class FileDamaged(Exception):
    """A file is not a valid Parquet file of an export."""


class ExportRow(NamedTuple):
    """One record of an export with the columns stored beside it."""

    record: RawRecord
    number: int
    """Index of the record in its partition, from 0; also the index of its leaf."""
    leaf_sha256: bytes
    """The leaf's hash as stored in the file."""
    envelope: RawEnvelope
    """The decoded columns as stored in the file."""

    @classmethod
    def of(cls, record: RawRecord, number: int) -> "ExportRow":
        """Make the row of a record, with its leaf hash and decoded columns."""
        return cls(record, number, leaf_hash(leaf_bytes(record)), read_envelope(record.value, record.headers))


def require_pyarrow() -> None:
    """Raise NoPyarrow, whose message has the remedy, if pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise NoPyarrow(f"exports need pyarrow ({error}); install it: pip install 'neuroweaver[audit]'") from None


def write_rows(path: Path, rows: Sequence[ExportRow]) -> None:
    """Write `rows` as one file, atomically and durably."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = [row.record for row in rows]
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in RawRecord._fields}
    columns["headers"] = [
        [{"name": name_kept(name), "value": value} for name, value in record.headers] for record in records
    ]
    columns["number"] = [row.number for row in rows]
    columns["leaf_sha256"] = [row.leaf_sha256 for row in rows]
    for name, column in zip(_ENVELOPE, zip(*(astuple(row.envelope) for row in rows), strict=True), strict=True):
        columns[name] = list(column)
    table = pa.Table.from_pydict(columns, schema=_schema())
    with replacing(path) as out:
        pq.write_table(table, out, compression="zstd", write_page_checksum=True)


def read_rows(path: Path) -> Iterator[ExportRow]:
    """Read the rows of one file in order, a few at a time. Raises FileDamaged and OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(_schema()):
                raise FileDamaged(f"{path}: its columns differ from those of an export")
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from map(_row, batch.to_pylist())
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise FileDamaged(f"{path}: it cannot be read: {error}") from None


def _row(fields_: dict[str, Any]) -> ExportRow:
    headers = tuple((name_of_kept(header["name"]), header["value"]) for header in fields_["headers"])
    record = RawRecord(**{name: fields_[name] for name in RawRecord._fields if name != "headers"}, headers=headers)
    return ExportRow(
        record, fields_["number"], fields_["leaf_sha256"], RawEnvelope(**{name: fields_[name] for name in _ENVELOPE})
    )


def _schema() -> "pa.Schema":
    import pyarrow as pa

    def needed(name: str, kind: "pa.DataType") -> "pa.Field":
        return pa.field(name, kind, nullable=False)

    header = pa.struct([needed("name", pa.string()), pa.field("value", pa.binary())])
    return pa.schema(
        [
            needed("topic", pa.string()),
            needed("partition", pa.int32()),
            needed("offset", pa.int64()),
            needed("timestamp", pa.int64()),
            pa.field("key", pa.binary()),
            pa.field("value", pa.binary()),
            needed("headers", pa.list_(header)),
            needed("number", pa.int64()),
            needed("leaf_sha256", pa.binary(32)),
            pa.field("type", pa.string()),
            pa.field("id", pa.string()),
            pa.field("source", pa.string()),
            pa.field("subject", pa.string()),
            pa.field("job_id", pa.string()),
            pa.field("time", pa.timestamp("us", tz="UTC")),
            pa.field("sequence", pa.int64()),
            pa.field("causation_id", pa.string()),
        ]
    )
