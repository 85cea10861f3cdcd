"""Reads indexes of rows and ledgers of trainings from the artifact store. What cannot be read is said and never taken for nothing."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from schemas.artifacts import ArtifactRef
from schemas.ledger import RowsUsed
from schemas.row_index import FILE, IndexedRow, rows_in
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, ArtifactRefused
from services.chassis.storage.artifacts.store import ArtifactStore


class Read(NamedTuple):
    """What was found, and what could not be read."""

    rows: list[IndexedRow]
    fault: str | None = None


class StoredLedgers:
    """The indexes and ledgers in one artifact store; each is verified whenever it is read."""

    def __init__(self, store_uri: str, cache: Path) -> None:
        self._store_uri, self._cache = store_uri, cache

    def rows(self, index: ArtifactRef, digest: str) -> Read:
        """Return the rows with a digest in an index."""
        try:
            return Read(rows_in(self._folder(index) / FILE, digest))
        except (ArtifactCorrupt, ArtifactRefused, OSError, ValueError) as error:
            return Read([], type(error).__name__)

    def places(self, index: ArtifactRef, digests: Iterable[str]) -> Mapping[str, list[IndexedRow]] | str:
        """Return where in an index each of these digests is, those that are nowhere left out, or why that cannot be read."""
        try:
            file = self._folder(index) / FILE
            found = {digest: rows_in(file, digest) for digest in digests}
        except (ArtifactCorrupt, ArtifactRefused, OSError, ValueError) as error:
            return type(error).__name__
        return {digest: rows for digest, rows in found.items() if rows}

    def times(self, ledger: ArtifactRef, rows: Iterable[str]) -> Mapping[str, int] | str:
        """Return how often a training learnt from each of these rows, or why that cannot be read."""
        try:
            used = RowsUsed.model_validate_json((self._folder(ledger) / RowsUsed.FILE).read_bytes())
            return {row: used.times(row) for row in rows}
        except (ArtifactCorrupt, ArtifactRefused, OSError, ValidationError, ValueError) as error:
            return type(error).__name__

    def _folder(self, ref: ArtifactRef) -> Path:
        return ArtifactStore(self._store_uri).fetch(ref, self._cache)
