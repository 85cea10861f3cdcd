"""Removes the bytes of rows that are erased, and marks the versions that learnt from them.

One process removes at a time, by an advisory lock. What is left to do follows from the rows of the registry: a data set of which not every
erasure is done, and what was stored or registered and not looked at yet. Each act can be repeated, so a crash anywhere is made good later.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.artifacts import ArtifactRef
from schemas.datasets import RowsErased, RowsRemoved
from services.chassis.executor.folders import cache_of
from services.chassis.kernel.aggregate import Ref
from services.chassis.postgres.exclusive import Exclusive
from services.chassis.postgres.turns import in_turn
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import described, is_transient
from services.chassis.serving.reads import Reads
from services.chassis.serving.runtime import Runtime
from services.chassis.storage.artifacts.store import ArtifactStore
from services.registry.domain.datasets import DatasetState, dataset_ref
from services.registry.domain.erasing import erasure, erasure_ref, learnt_from_erased, removal
from services.registry.domain.state import REGISTRATION, RegistrationState, model_ref
from services.registry.effects import DATA
from services.registry.erasing import statements
from services.registry.erasing.finding import Learner, RowFinder
from services.registry.erasing.stored import Removed, StoredRows, results_of
from services.registry.ledger.reading import StoredLedgers
from services.registry.locks import ERASING_LOCK

_log = get_logger(__name__)
_AGAIN_SECONDS = 30.0
"""A data set of which the bytes could not be removed is tried again after this time, so that it delays no other."""
_MOST = 100


class ErasedData(NamedTuple):
    """A data set from which rows were erased."""

    state: DatasetState
    told: tuple[RowsErased, ...]
    """Its erasures, the earliest first."""

    @property
    def digests(self) -> frozenset[str]:
        """The digests of all its erased rows."""
        return frozenset(row for one in self.told for row in one.rows)


async def erased_data(reads: Reads, key: str) -> ErasedData | None:
    """Return a registered data set with its erasures; None if there is none with this key."""
    row = await reads.row(statements.OF_DATASET, key)
    state = DatasetState.stored(row[0]) if row else DatasetState()
    if row is None or state.registered is None:
        return None
    return ErasedData(state, tuple(map(RowsErased.model_validate, json.loads(row[1]))))


@dataclass
class RowRemover:
    """The remover of one process."""

    runtime: Runtime
    _later: dict[str, float] = field(default_factory=dict)
    """When a data set that could not be handled is tried again, on the clock of this process."""

    def __post_init__(self) -> None:
        settings = self.runtime.settings
        cache = cache_of(settings.home)
        self._rows = StoredRows(ArtifactStore(settings.artifacts_uri), cache)
        self._finder = RowFinder(self.runtime.reads, StoredLedgers(settings.artifacts_uri, cache))

    async def run(self, stop: asyncio.Event) -> None:
        """Remove until `stop`."""
        failures = FailureLog(_log)
        await in_turn(self.runtime.engine, ERASING_LOCK, self.once, stop, failures, "erased rows could not be removed")

    async def once(self, session: Exclusive) -> None:
        """Remove what is erased, then look at what was stored and registered. Raises the errors of the database."""
        for (key,) in await self.runtime.reads.rows(statements.ERASING, _MOST):
            if self._due(key):
                with self._apart(key):
                    await self._remove(key)
        for number, kind, key in await self.runtime.reads.rows(statements.TO_LOOK_AT, _MOST):
            if not self._due(key):
                continue
            with self._apart(key):
                await (self._look_at_data(key) if kind == DATA else self._look_at_version(key))
                await session.execute(statements.LOOKED_AT, {"id": number})

    def _due(self, key: str) -> bool:
        return self._later.get(key, 0.0) <= time.monotonic()

    @contextmanager
    def _apart(self, key: str) -> Iterator[None]:
        """Keep the fault of one data set from the others; it is tried again later."""
        try:
            yield
        except Exception as error:
            if is_transient(error):
                raise
            self._later[key] = time.monotonic() + _AGAIN_SECONDS
            _log.warning("bytes of erased rows could not be removed yet", about=key, error=described(error))

    async def _remove(self, key: str) -> None:
        data = await erased_data(self.runtime.reads, key)
        if data is None or data.state.registered is None or not data.told:
            return
        made = data.state.registered
        stored = await self.runtime.reads.rows(statements.STORED, made.sha256)
        jobs = sorted({job_id for job_id, _ in stored})
        digests = {digest for _, outputs in stored for digest in json.loads(outputs)}
        results = results_of(row[0] for row in await self.runtime.reads.rows(statements.RESULTS, jobs))
        await asyncio.to_thread(self._rows.mark, data.digests)
        removed = await asyncio.to_thread(self._rows.remove, made, data.digests, digests, results)
        learners, remarks = await self._finder.learners({made.sha256: removed.learnt})
        for remark in remarks:
            _log.warning("a version counts as one that learnt from erased rows", about=key, why=remark)
        for learner in learners:
            await self._mark(learner, data.told[-1])
        await self._tell(data, removed)

    async def _mark(self, learner: Learner, told: RowsErased) -> None:
        owner, ref = model_ref(learner.id.partition("@")[0]), Ref(REGISTRATION, learner.key)
        async with self.runtime.transact([owner, ref]) as command:
            row = command.unit.states[ref]
            assert isinstance(row, RegistrationState)
            if decision := learnt_from_erased(row, told, learner.rows, learner.through):
                command.unit.apply(decision)

    async def _tell(self, data: ErasedData, removed: Removed) -> None:
        made = data.state.registered
        assert made is not None
        told = RowsRemoved(
            dataset=made.dataset, sha256=made.sha256, erasures=data.state.erasures, rows=removed.artifact.rows,
            artifact=removed.artifact.ref, preferences=removed.preferences, others=removed.others,
        )  # fmt: skip
        ref = dataset_ref(made)
        async with self.runtime.transact([ref]) as command:
            state = command.unit.states[ref]
            assert isinstance(state, DatasetState)
            if decision := removal(state, told):
                command.unit.apply(decision)
                _log.info("bytes of erased rows are removed", dataset=ref.key, rows=told.rows, others=told.others)

    async def _look_at_data(self, sha256: str) -> None:
        """Erase from what a step stored the rows that were erased while it ran."""
        told = [RowsErased.model_validate_json(row[0]) for row in await self.runtime.reads.rows(statements.ERASED)]
        if not told:
            return
        first: dict[str, RowsErased] = {}
        for one in told:
            for digest in one.rows:
                first.setdefault(digest, one)
        for (key,) in await self.runtime.reads.rows(statements.OF_SNAPSHOT, sha256):
            data = await erased_data(self.runtime.reads, key)
            if data is None or data.state.registered is None:
                continue
            held = await self._held(data.state.registered.row_index, first)
            if held - data.digests:
                await self._erase(data, [(digest, first[digest]) for digest in sorted(held - data.digests)])
            elif held:
                await self._remove(key)

    async def _held(self, index: ArtifactRef | None, digests: dict[str, RowsErased]) -> set[str]:
        if index is None:
            return set()
        places = await asyncio.to_thread(self._finder.ledgers.places, index, digests)
        if isinstance(places, str):
            raise RuntimeError(f"the index of rows {index.uri} cannot be read: {places}")
        return set(places)

    async def _erase(self, data: ErasedData, rows: list[tuple[str, RowsErased]]) -> None:
        """Tell that rows are erased from another data set, by whom and why they were erased at first."""
        made = data.state.registered
        assert made is not None
        for erased in {one.erasure: one for _, one in rows}.values():
            digests = tuple(digest for digest, one in rows if one.erasure == erased.erasure)
            told = erased.model_copy(update={"dataset": made.dataset, "sha256": made.sha256, "rows": digests})
            async with self.runtime.transact([dataset_ref(told), erasure_ref(told)]) as command:
                command.unit.apply(erasure(told))

    async def _look_at_version(self, key: str) -> None:
        """Mark a version that was registered after rows were erased that its job, or one before it, had learnt from."""
        for (dataset,) in await self.runtime.reads.rows(statements.DATA_OF_VERSION, key):
            await self._remove(dataset)
