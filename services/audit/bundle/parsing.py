"""Reads the files of a bundle as what they must be: the view of the log, the records, the envelope."""

from io import BytesIO
from pathlib import Path

from pydantic import ValidationError

from services.audit.bundle.compared import first_difference
from services.audit.bundle.documents import view_file
from services.audit.bundle.dsse import PAYLOAD_TYPE, Envelope, file_of
from services.audit.bundle.faults import Differs
from services.audit.bundle.log_view import FORMAT, LOG, LOG_BYTES, LogView
from services.audit.bundle.reading import content
from services.audit.bundle.record_lines import LINES, RECORDS, ProvenRecord, record_in
from services.audit.bundle.statement import STATEMENT


def view_in(folder: Path) -> LogView:
    """Return what the writer saw of the log. Raises Differs."""
    raw = content(folder, LOG, LOG_BYTES)
    try:
        view = LogView.model_validate_json(raw)
    except ValidationError as error:
        raise Differs(LOG, "a view of the log", fault_of(error)) from None
    if view.format != FORMAT:
        raise Differs(
            LOG, f"format {FORMAT}, which this version reads", f"format {view.format}; verify it with {view.software}"
        )
    require_equal(LOG, view_file(view), raw)
    names = [(seen.topic, seen.partition) for seen in view.partitions]
    if names != sorted(set(names)):
        raise Differs(LOG, "each partition once, in order", "another order, or a partition twice")
    return view


def records_in(folder: Path) -> tuple[ProvenRecord, ...]:
    """Return the records, whose proofs are not checked yet. Raises Differs."""
    found: list[ProvenRecord] = []
    for number, line in enumerate(BytesIO(content(folder, RECORDS)), 1):
        if number > LINES:
            raise Differs(RECORDS, f"at most {LINES} records", "more")
        found.append(record_in(line, number))
    if not found:
        raise Differs(RECORDS, "records", "none")
    places = [(one.record.topic, one.record.partition, one.record.offset) for one in found]
    if places != sorted(set(places)):
        raise Differs(RECORDS, "each record once, by topic, partition and offset", "another order, or a record twice")
    return tuple(found)


def envelope_in(folder: Path) -> tuple[Envelope, bytes]:
    """Return the envelope and its payload. Raises Differs."""
    raw = content(folder, STATEMENT)
    try:
        envelope = Envelope.model_validate_json(raw)
        body = envelope.body()
    except ValidationError as error:
        raise Differs(STATEMENT, "a DSSE envelope", fault_of(error)) from None
    except ValueError:
        raise Differs(STATEMENT, "a payload in Base64", "something else") from None
    if envelope.payloadType != PAYLOAD_TYPE:
        raise Differs(STATEMENT, f"payloadType {PAYLOAD_TYPE}", envelope.payloadType)
    require_equal(STATEMENT, file_of(envelope), raw)
    return envelope, body


def require_equal(file: str, expected: bytes, found: bytes) -> None:
    """Raise Differs unless two JSON documents have equal bytes."""
    if (differs := first_difference(file, expected, found, is_json=True)) is not None:
        raise Differs(differs.file, differs.expected, differs.found)


def fault_of(error: ValidationError) -> str:
    """Return the first fault in words."""
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
