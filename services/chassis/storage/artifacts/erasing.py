"""Erases rows from an artifact, and samples of rows from a report: stores what remains of it, leads there, then removes the files that had the rows.

It can be interrupted anywhere and called again: what is done already stays done. What remains is stored before the note that leads there, and
nothing is removed before that note is written.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

import fsspec

from schemas.artifacts import ArtifactRef, Manifest
from services.chassis.storage.artifacts.erased import Erasures, Remaining
from services.chassis.storage.artifacts.errors import MANIFEST, ArtifactRefused, store_errors
from services.chassis.storage.artifacts.places import copy_in
from services.chassis.storage.artifacts.store import ArtifactStore

ROWS_GONE = "erased-rows.json"
"""File of what remains of an artifact: the ids of the rows that were erased from it."""
_LINES, _PAGES = ".jsonl", ".html"
_SAMPLES = re.compile(rb'<section aria-labelledby="samples">.*?</section>', re.DOTALL)
"""The part of a step's report that shows rows; every text in it is escaped."""


def erase_rows(store: ArtifactStore, ref: ArtifactRef, ids: Collection[str], cache: Path) -> Remaining | None:
    """Erase the rows with these ids from an artifact, and return what remains of it; None if it never had one of them.

    Lines with such an id are left out of every file of JSON lines, and the samples of rows out of every page, which does not say whose they are.

    Raises ArtifactRefused for an artifact of another store, and the store's errors.
    """
    if not store.is_own(ref):
        raise ArtifactRefused(f"{ref.uri} is in another store than {store.uri}; erase its rows there")
    erasures = Erasures(store.uri)
    before = erasures.remaining(ref.sha256)
    current = before.ref if before else ref
    folder = store.fetch(current, cache)
    with tempfile.TemporaryDirectory() as name:
        if _copied_without(folder, Path(name), frozenset(ids)):
            gone = len(erased_ids(Path(name)))
            erasures.leave(current.sha256, Remaining(ref=store.put(Path(name)), rows=gone))
    _remove_bytes(store, ref, erasures.chain(ref.sha256), cache)
    return erasures.remaining(ref.sha256)


def erased_ids(folder: Path) -> list[str]:
    """Return the ids of the rows that were erased from an artifact, of which `folder` has what remains; none if it is whole."""
    file = folder / ROWS_GONE
    return list(json.loads(file.read_text(encoding="utf-8"))["ids"]) if file.is_file() else []


def _copied_without(folder: Path, target: Path, ids: frozenset[str]) -> bool:
    """Copy an artifact's files without the lines of these rows and without samples; return whether there was any."""
    gone, cut = set[str](), False
    for source in sorted(folder.rglob("*")):
        path = target / source.relative_to(folder)
        if source.is_dir():
            path.mkdir(parents=True, exist_ok=True)
        elif source.suffix == _LINES:
            gone |= _copy_lines(source, path, ids)
        elif source.suffix == _PAGES:
            path.write_bytes(page := _SAMPLES.sub(b"", source.read_bytes()))
            cut = cut or len(page) < source.stat().st_size
        elif source.name not in (MANIFEST, ROWS_GONE):
            shutil.copyfile(source, path)
    known = set(erased_ids(folder)) | gone
    if known:
        (target / ROWS_GONE).write_text(json.dumps({"ids": sorted(known)}) + "\n", encoding="utf-8")
    return bool(gone) or cut


def _copy_lines(source: Path, target: Path, ids: frozenset[str]) -> set[str]:
    gone = set[str]()
    with source.open("rb") as lines, target.open("wb") as file:
        for line in lines:
            row = json.loads(line) if line.strip() else None
            row_id = row.get("id") if isinstance(row, dict) else None
            if row_id in ids:
                gone.add(str(row_id))
            else:
                file.write(line)
    return gone


def _remove_bytes(store: ArtifactStore, ref: ArtifactRef, chain: list[Remaining], cache: Path) -> None:
    """Remove from an artifact, and from what remained of it meanwhile, every file that is not also in what remains now."""
    if not chain:
        return
    kept = {entry.path: entry.sha256 for entry in _manifest(chain[-1].ref).files}
    for old in (ref, *(one.ref for one in chain[:-1])):
        fs, root = fsspec.url_to_fs(old.uri)
        for entry in _manifest(old).files:
            path = f"{root}/{entry.path}"
            if kept.get(entry.path) != entry.sha256:
                with store_errors(store.uri):
                    if fs.exists(path):
                        fs.rm_file(path)
        shutil.rmtree(copy_in(cache, old.sha256), ignore_errors=True)


def _manifest(ref: ArtifactRef) -> Manifest:
    fs, root = fsspec.url_to_fs(ref.uri)
    with store_errors(ref.uri):
        return Manifest.model_validate_json(fs.cat_file(f"{root}/{MANIFEST}"))
