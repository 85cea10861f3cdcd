"""Derives all documents of a bundle from its records and the view of the log: equal records give equal bytes. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.audit.bundle import technical_file
from services.audit.bundle.bom import BOM, bom_of
from services.audit.bundle.cited import canonical, document, readable
from services.audit.bundle.facts import sections_of
from services.audit.bundle.log_view import LOG, LogView
from services.audit.bundle.model_card import CARD, card_of
from services.audit.bundle.record_lines import RECORDS, ProvenRecord, lines
from services.audit.bundle.sources import VersionSources, sources_of
from services.audit.bundle.statement import checked, statement_of

CITATIONS = "citations.json"
KEY = "public-key.pem"


class Derived(NamedTuple):
    """What follows from the records of a bundle."""

    files: Mapping[str, bytes]
    """All files but the statement, the key and the artifact, by name."""
    statement: bytes
    """The payload that is signed."""
    sources: VersionSources


def derive(view: LogView, records: Sequence[ProvenRecord]) -> Derived:
    """Return everything that follows from the records. Raises BundleRefused and ValidationError if they say nothing usable."""
    known = sources_of(records, view.model, view.version)
    name = f"{view.model}@{view.version}"
    sections = sections_of(known)
    bom, of_bom = document(bom_of(known))
    card, of_card = card_of(known, sections, name)
    files = {
        LOG: view_file(view),
        RECORDS: lines(records),
        BOM: readable(bom),
        CARD: card.encode(),
        technical_file.JSON: readable(technical_file.as_json(sections, name)),
        technical_file.TEXT: technical_file.as_text(sections, name).encode(),
    }
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    statement, of_statement = document(statement_of(known, view, digests))
    citations = {"statement": of_statement, BOM: of_bom, CARD: of_card}
    return Derived({**files, CITATIONS: readable(citations)}, canonical(checked(statement)), known)


def view_file(view: LogView) -> bytes:
    """Return the one spelling of a view of the log."""
    return readable(view.model_dump(mode="json"))
