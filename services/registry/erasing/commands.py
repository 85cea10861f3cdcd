"""Erases rows: the command behind POST /erasures, which tells one event for each data set that has some of them."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from schemas.datasets import RowsErased
from schemas.ids import new_id
from schemas.reasons import first_of
from services.chassis.executor.folders import cache_of
from services.chassis.process.transient import described
from services.chassis.serving.problem import Problem
from services.chassis.serving.runtime import Runtime
from services.chassis.storage.artifacts.erased import Erasures
from services.chassis.storage.artifacts.errors import StoreAway
from services.registry.domain.datasets import dataset_ref
from services.registry.domain.erasing import erasure, erasure_ref
from services.registry.erasing.finding import Held, Learner, RowFinder
from services.registry.erasing.views import EraseAsked, Erasure, LearntVersion
from services.registry.ledger.reading import StoredLedgers

_NAMED = 3


@dataclass(frozen=True)
class EraseCommands:
    """The commands of one registry."""

    runtime: Runtime

    async def erase(self, asked: EraseAsked) -> Erasure:
        """Erase rows, or say what that would mean. Raises a 404 Problem for rows that no data set has.

        When it returns, no step reads them any more, unless a remark says that this could not be noted yet.
        """
        settings, digests = self.runtime.settings, tuple(dict.fromkeys(asked.rows))
        finder = RowFinder(self.runtime.reads, StoredLedgers(settings.artifacts_uri, cache_of(settings.home)))
        held, remarks = await finder.held(digests)
        _refuse_unknown(digests, held, remarks, asked.dataset)
        learners, said = await finder.learners(_learnt(held))
        remarks += said
        erased = None if asked.dry_run else await self._told(asked, held)
        if erased is not None:
            try:
                await asyncio.to_thread(Erasures(settings.artifacts_uri).mark, digests)
            except (OSError, StoreAway) as error:
                remarks.append(
                    f"jobs that begin now may still read the rows, until the store can be written: {described(error)}"
                )
        return Erasure(
            id=erased,
            rows=digests,
            found=tuple(row for one in held for rows in one.rows.values() for row in rows),
            versions=tuple(map(_view, learners)),
            complete=not remarks,
            remarks=tuple(remarks),
        )

    async def _told(self, asked: EraseAsked, held: Sequence[Held]) -> str:
        """Tell it of all data sets in one transaction, and return the id of the erasure."""
        erased = new_id()
        told = [
            RowsErased(
                erasure=erased, dataset=one.dataset.partition("@")[0], sha256=one.sha256, rows=tuple(one.rows), by=asked.by,
                reason=asked.reason,
            )
            for one in held
        ]  # fmt: skip
        refs = [ref for one in told for ref in (dataset_ref(one), erasure_ref(one))]
        async with self.runtime.transact(refs) as command:
            for one in told:
                command.unit.apply(erasure(one))
        return erased


def _refuse_unknown(digests: Collection[str], held: Sequence[Held], remarks: Sequence[str], dataset: str | None) -> None:
    """Raise a 404 Problem for rows that are in no data set, or not in the one that is named."""
    where = [one for one in held if dataset is None or one.dataset.startswith(dataset)]
    unknown = [digest for digest in digests if not any(digest in one.rows for one in where)]
    if not unknown:
        return
    place = "no data set that is registered has such a row" if dataset is None else f"{dataset} has no such row"
    which = f"{len(unknown)} of {len(digests)} rows: {first_of(unknown, _NAMED)}"
    missing = f"; {len(remarks)} data sets could not be searched: {first_of(remarks, _NAMED)}" if remarks else ""
    how = "the digest is that of the whole row as it was given, with all columns: neuroweaver datasets who-saw --row FILE finds it"
    raise Problem(404, "Not found", f"{which}; {place}; {how}{missing}")


def _learnt(held: Sequence[Held]) -> dict[str, set[str]]:
    learnt: dict[str, set[str]] = {}
    for one in held:
        learnt.setdefault(one.sha256, set()).update(one.learnt)
    return learnt


def _view(learner: Learner) -> LearntVersion:
    return LearntVersion(
        id=learner.id, job_id=learner.job_id, rows=learner.rows, through=learner.through, aliases=learner.aliases,
        deployments=learner.deployments,
    )  # fmt: skip
