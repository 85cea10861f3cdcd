"""Searches for who saw a row: data sets, trainings, versions. A search that is not complete says so."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.artifacts import ArtifactRef
from services.chassis.serving.reads import Reads, Rows
from services.registry.domain.uses import DataUse
from services.registry.ledger import statements
from services.registry.ledger.reading import StoredLedgers
from services.registry.ledger.views import FoundRow, RowSeen, SeeingStep, SeeingVersion

DATASETS_AT_MOST = 500
TRAININGS_AT_MOST = 1000
VERSIONS_AT_MOST = 1000
TRAINED = "train"
_ALL = 2**31


@dataclass
class _Search:
    """What was found so far."""

    found: list[FoundRow] = field(default_factory=list)
    learnt: dict[str, set[str]] = field(default_factory=dict)
    """By digest of a data set, the ids of its rows that may have been learnt from."""
    steps: dict[tuple[str, str, int, str], SeeingStep] = field(default_factory=dict)
    unread: list[DataUse] = field(default_factory=list)
    """The trainings whose ledger cannot be read."""
    remarks: list[str] = field(default_factory=list)


Trainings = dict[tuple[str, str], set[str]]
"""By job and step the ids of the rows that the training learnt from."""


@dataclass(frozen=True, slots=True)
class RowSearch:
    """Searches one registry's data sets."""

    reads: Reads
    ledgers: StoredLedgers

    async def who_saw(self, digest: str, name: str | None) -> RowSeen:
        """Return who saw the row with this digest in data sets of this name, or in any."""
        search = _Search()
        await self._datasets(search, digest, name)
        for sha256, rows in search.learnt.items():
            await self._trainings(search, sha256, rows)
        versions = await self._versions(search)
        return RowSeen(
            digest=digest, found=tuple(search.found), steps=tuple(search.steps.values()), versions=versions,
            complete=not search.remarks, remarks=tuple(search.remarks),
        )  # fmt: skip

    async def trainings(self, sha256: str, rows: set[str]) -> tuple[Trainings, list[str]]:
        """Return the trainings that learnt from these rows of a data set, and remarks; one whose ledger cannot be read counts for all."""
        search, found = _Search(), Trainings()
        await self._trainings(search, sha256, rows, _ALL)
        for job_id, step, _, row in search.steps:
            found.setdefault((job_id, step), set()).add(row)
        found.update({(use.job_id, use.step): set(rows) for use in search.unread})
        return found, search.remarks

    async def _datasets(self, search: _Search, digest: str, name: str | None) -> None:
        rows = await self.reads.rows(statements.SEARCHED, name, DATASETS_AT_MOST + 1)
        if len(rows) > DATASETS_AT_MOST:
            search.remarks.append(
                f"only the newest {DATASETS_AT_MOST} data sets were searched; name one to search the others"
            )
        await asyncio.to_thread(self._indexes, search, digest, rows[:DATASETS_AT_MOST])

    def _indexes(self, search: _Search, digest: str, datasets: Rows) -> None:
        for key, sha256, index in datasets:
            if index is None or index == "null":
                search.remarks.append(f"{key} has no index of its rows")
                continue
            read = self.ledgers.rows(ArtifactRef.model_validate_json(index), digest)
            if read.fault:
                search.remarks.append(f"the index of {key} cannot be read: {read.fault}")
            for row in read.rows:
                search.found.append(FoundRow(dataset=str(key), split=row.split, row=row.id))
                if row.split == TRAINED:
                    search.learnt.setdefault(str(sha256), set()).add(row.id)

    async def _trainings(self, search: _Search, sha256: str, rows: set[str], most: int = TRAININGS_AT_MOST) -> None:
        trainings = await self.reads.rows(statements.TRAININGS, sha256, most + 1)
        if len(trainings) > most:
            search.remarks.append(f"only {most} trainings on {sha256} were searched")
        known = [(DataUse.model_validate_json(use), *stored) for use, *stored in trainings[:most]]
        uses = [use for use, ours, of_job in known if _reads(use, ours, of_job)]
        await asyncio.to_thread(self._ledgers, search, uses, rows)

    def _ledgers(self, search: _Search, uses: Sequence[DataUse], rows: set[str]) -> None:
        for use in uses:
            assert use.ledger is not None
            times = self.ledgers.times(use.ledger, sorted(rows))
            if isinstance(times, str):
                search.unread.append(use)
                search.remarks.append(f"the ledger of {use.job_id}/{use.step}/{use.attempt} cannot be read: {times}")
                continue
            for row in (row for row, number in times.items() if number):
                search.steps[use.job_id, use.step, use.attempt, row] = SeeingStep(
                    job_id=use.job_id, step=use.step, attempt=use.attempt, at=use.at, row=row, times=times[row]
                )

    async def _versions(self, search: _Search) -> tuple[SeeingVersion, ...]:
        seeing = sorted({(step.job_id, step.step) for step in search.steps.values()})
        if not seeing:
            return ()
        jobs, steps = (list(part) for part in zip(*seeing, strict=True))
        rows = await self.reads.rows(statements.VERSIONS, jobs, steps, VERSIONS_AT_MOST + 1)
        if len(rows) > VERSIONS_AT_MOST:
            search.remarks.append(f"only {VERSIONS_AT_MOST} of the versions are named")
        return tuple(
            SeeingVersion(
                id=f"{model}@{version}", aliases=tuple(json.loads(aliases)), deployments=tuple(deployments),
                through=through if depth else None,
            )
            for model, version, through, depth, aliases, deployments in rows[:VERSIONS_AT_MOST]
        )  # fmt: skip


def _reads(use: DataUse, stored: str, stored_by_job: str) -> bool:
    """Whether a training may have read these rows: not if it read only those that another step of its job stored."""
    read, ours = set(use.inputs), set(json.loads(stored))
    others = {digest for outputs in json.loads(stored_by_job) for digest in outputs} - ours
    return bool(read & ours) or not read & others
