"""Gives the rows that a step of kind prepare stored their digests, and the facts by which the registry registers them."""

import hashlib
import json
from pathlib import Path

from schemas.datasets import dataset_name
from schemas.lines import SPLITS, row_digests, row_digests_file, split_file
from schemas.reasons import shortened
from schemas.recipes.dataset import DatasetSettings
from schemas.results import (
    DATASET_LICENCE,
    DATASET_NAME,
    DATASET_REFERENCE,
    DATASET_SOURCE,
    REQUESTER,
    SNAPSHOT_SHA256,
)
from schemas.row_index import FILE, IndexedRow, write_row_index
from services.chassis.storage.digests import file_sha256

_REFERENCE_LIMIT = 500


def snapshot_digest(folder: Path, preferences: Path) -> str:
    """Return the digest of the rows, of the digests of the rows as they were given, and of their pairs or labels."""
    names = sorted(name for split in SPLITS for name in (split_file(split), row_digests_file(split)))
    files = {name: folder / name for name in names if (folder / name).is_file()}
    files |= {f"preferences/{path.name}": path for path in sorted(preferences.iterdir())}
    digests = {name: file_sha256(path) for name, path in files.items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def index_rows(folder: Path, target: Path) -> None:
    """Write the index of the rows of `folder` to `target`."""
    rows = (
        (digest, IndexedRow(split, row_id))
        for split in SPLITS
        if (folder / row_digests_file(split)).is_file()
        for digest, row_id in row_digests(folder / row_digests_file(split))
    )
    write_row_index(rows, target / FILE)


def facts_for_the_registry(settings: DatasetSettings, snapshot: str, requester: str) -> dict[str, str]:
    """Return who stored which data under which name, and what the requester says about them."""
    said = {DATASET_SOURCE: settings.source, DATASET_LICENCE: settings.licence}
    return {
        DATASET_NAME: dataset_name(settings),
        SNAPSHOT_SHA256: snapshot,
        DATASET_REFERENCE: shortened(settings.reference, _REFERENCE_LIMIT),
        REQUESTER: requester,
        **{name: value for name, value in said.items() if value is not None},
    }
