"""Removes the bytes of erased rows from what is stored of a data set and from what steps made of its rows."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from schemas.artifacts import ArtifactRef
from schemas.datasets import DatasetRegistered
from schemas.jobs import StepResult
from schemas.lines import SPLITS, row_digests, row_digests_file
from schemas.results import CANDIDATES, PREDICTIONS, PREFERENCES, REPORT
from services.chassis.storage.artifacts.erased import Erasures, Remaining
from services.chassis.storage.artifacts.erasing import erase_rows
from services.chassis.storage.artifacts.errors import ArtifactMissing
from services.chassis.storage.artifacts.store import ArtifactStore
from services.registry.ledger.searching import TRAINED

_WITH_TEXTS = (CANDIDATES, PREDICTIONS, PREFERENCES, REPORT)
"""Outputs of steps that have rows of what the step read, or answers to them."""

Results = Mapping[str, StepResult]
"""The results of the steps behind a version, by step."""


class Removed(NamedTuple):
    """What was removed, or had been removed before."""

    artifact: Remaining
    preferences: ArtifactRef | None
    learnt: set[str]
    """The ids of the rows that may have been learnt from."""
    others: int
    """Number of other artifacts that had one of the rows."""


@dataclass(frozen=True, slots=True)
class StoredRows:
    """What is stored in one artifact store; each call blocks."""

    store: ArtifactStore
    cache: Path

    def mark(self, digests: Iterable[str]) -> None:
        """Let no step read rows with these digests any more."""
        Erasures(self.store.uri).mark(digests)

    def remove(
        self, made: DatasetRegistered, digests: Collection[str], stored: Iterable[str], results: Sequence[Results]
    ) -> Removed:
        """Remove the rows from a data set, from the artifacts whose digests are `stored`, which have the same rows, and from what the
        steps of `results` made of them. Raises the store's errors; what is missing has no bytes and is passed over, unless it is the data set."""
        ids, learnt = self._ids(made, digests)
        stored = set(stored)
        others = [ref for ref in map(self.store.stored, sorted(stored)) if ref is not None]
        for of_version in results:
            others += _made_of(of_version, stored)
        own = {ref.sha256 for ref in (made.artifact, made.preferences) if ref is not None}
        cut = [self._erased(ref, ids) for ref in {ref.sha256: ref for ref in others if ref.sha256 not in own}.values()]
        pairs = made.preferences and self._erased(made.preferences, ids)
        artifact = erase_rows(self.store, made.artifact, ids, self.cache) or Remaining(ref=made.artifact, rows=0)
        return Removed(artifact, pairs.ref if pairs else made.preferences, learnt, sum(one is not None for one in cut))

    def _ids(self, made: DatasetRegistered, digests: Collection[str]) -> tuple[set[str], set[str]]:
        """Return the ids of the rows in the data set, and of those in its training split. What remains of a data set still says both."""
        folder, ids, learnt = self.store.fetch_remaining(made.artifact, self.cache), set[str](), set[str]()
        for split in SPLITS:
            file = folder / row_digests_file(split)
            read = row_digests(file) if file.is_file() else ()
            found = {row_id for digest, row_id in read if digest in digests}
            ids |= found
            if split == TRAINED:
                learnt = found
        return ids, learnt

    def _erased(self, ref: ArtifactRef, ids: Collection[str]) -> Remaining | None:
        try:
            return erase_rows(self.store, ref, ids, self.cache)
        except ArtifactMissing:
            return None


def results_of(texts: Iterable[str]) -> list[Results]:
    """Return results of steps as they are stored in rows."""
    found = (json.loads(text) for text in texts)
    return [{step: StepResult.model_validate(result) for step, result in one.items()} for one in found]


def _made_of(results: Results, stored: Collection[str]) -> list[ArtifactRef]:
    """Return the outputs with texts of the steps that read one of these artifacts, or what such a step made of them."""
    known, found = set(stored), list[ArtifactRef]()
    reading = [result for result in results.values() if known & set(result.inputs.values())]
    while reading:
        made = [ref for result in reading for name, ref in result.outputs.items() if name in _WITH_TEXTS]
        new = {ref.sha256 for ref in made} - known
        found += [ref for ref in made if ref.sha256 in new]
        known |= new
        reading = [result for result in results.values() if new & set(result.inputs.values())]
    return found
