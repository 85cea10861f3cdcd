"""Finds in which data sets rows are, and which versions learnt from them."""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.artifacts import ArtifactRef
from services.chassis.serving.reads import Reads, Rows
from services.registry.erasing import statements
from services.registry.ledger.reading import StoredLedgers
from services.registry.ledger.searching import TRAINED, RowSearch, Trainings
from services.registry.ledger.views import FoundRow


class Held(NamedTuple):
    """The rows that were looked for and that one data set has."""

    dataset: str
    """The data set, `name@digest`."""
    sha256: str
    rows: Mapping[str, Sequence[FoundRow]]
    """By digest."""

    @property
    def learnt(self) -> set[str]:
        """The ids of those that may have been learnt from."""
        return {row.row for rows in self.rows.values() for row in rows if row.split == TRAINED}


class Learner(NamedTuple):
    """A version that learnt from rows, directly or by continuing from one that did."""

    key: str
    """Of its row: the job and the step that registered it."""
    id: str
    job_id: str
    through: str | None
    aliases: tuple[str, ...]
    deployments: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class RowFinder:
    """Searches the data sets of one registry, all of them."""

    reads: Reads
    ledgers: StoredLedgers

    async def held(self, digests: Collection[str]) -> tuple[list[Held], list[str]]:
        """Return the data sets that have one of these rows, and why others could not be searched."""
        datasets = await self.reads.rows(statements.ALL_INDEXES)
        return await asyncio.to_thread(self._held, datasets, digests)

    def _held(self, datasets: Rows, digests: Collection[str]) -> tuple[list[Held], list[str]]:
        found, remarks = list[Held](), list[str]()
        for key, sha256, index in datasets:
            if index is None or index == "null":
                remarks.append(f"{key} has no index of its rows")
                continue
            places = self.ledgers.places(ArtifactRef.model_validate_json(index), digests)
            if isinstance(places, str):
                remarks.append(f"the index of {key} cannot be read: {places}")
            elif places:
                rows = {
                    digest: [FoundRow(dataset=key, split=row.split, row=row.id) for row in found_rows]
                    for digest, found_rows in places.items()
                }
                found.append(Held(key, sha256, rows))
        return found, remarks

    async def learners(self, learnt: Mapping[str, set[str]]) -> tuple[list[Learner], list[str]]:
        """Return the versions that learnt from rows, which are given by the digest of their data set and their ids, and remarks."""
        search, found, remarks = RowSearch(self.reads, self.ledgers), _Behind(), list[str]()
        for sha256, ids in learnt.items():
            if ids:
                trainings, said = await search.trainings(sha256, ids)
                found.add(sha256, trainings)
                remarks += said
        if not found.rows:
            return [], remarks
        jobs, steps = (list(part) for part in zip(*sorted(found.rows), strict=True))
        return _grouped(await self.reads.rows(statements.LEARNERS, jobs, steps), found), remarks


@dataclass
class _Behind:
    """The rows that trainings learnt from."""

    rows: dict[tuple[str, str], set[tuple[str, str]]] = field(default_factory=dict)

    def add(self, sha256: str, trainings: Trainings) -> None:
        for training, ids in trainings.items():
            self.rows.setdefault(training, set()).update((sha256, row) for row in ids)


def _grouped(rows: Rows, behind: _Behind) -> list[Learner]:
    """Return each version once, with what all trainings behind it learnt from; the shortest way to it says through which version."""
    found, learnt = dict[str, Learner](), dict[str, set[tuple[str, str]]]()
    for key, model, version, job_id, through, origin, step, aliases, deployments in rows:
        of_version = learnt.setdefault(key, set())
        of_version |= behind.rows.get((origin, step), set())
        known = found.get(key)
        first = through if known is None else known.through
        users = tuple(json.loads(aliases)), tuple(deployments)
        found[key] = Learner(key, f"{model}@{version}", job_id, first, *users, len(of_version))
    return list(found.values())
