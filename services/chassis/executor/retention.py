"""Applies the retention policy to an executor's files on its machine: checkpoints, logs of attempts, scratch files, downloads.

The executor's database says which are still needed: those of an attempt without an outcome or of a held lease. Artifacts have a remover
of their own (`replay/artifacts.py`).
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.executor import statements
from services.chassis.executor.folders import EVENT_FILES, cache_of
from services.chassis.settings import ServiceSettings
from services.chassis.storage.artifacts.erased import Erasures
from services.chassis.storage.retention.decision import RemovalCandidate
from services.chassis.storage.retention.files import Files, is_empty, measured, subfolders
from services.chassis.storage.retention.policy import RetentionRule
from services.chassis.storage.retention.run import Remover

_EMPTY = RetentionRule(timedelta(hours=1))
"""Empty folders are removed after this time; no process takes as long between creating a folder and a file in it."""

_AT_ONCE = RetentionRule(timedelta())


@dataclass(frozen=True, slots=True)
class StoredStep:
    """The state of a step in this service's database."""

    open: bool
    """Whether an attempt at it has no outcome yet."""
    ended_at: datetime | None


Steps = Mapping[tuple[str, str], StoredStep]


def removers(engine: AsyncEngine, settings: ServiceSettings, service: str) -> Sequence[Remover]:
    """The removers of one executor's files."""
    home, policy = settings.home.resolve(), settings.retention
    checkpoints, logs = (home / "checkpoints").resolve(), (home / "logs" / service).resolve()
    temporary, cache = (home / "tmp" / service).resolve(), cache_of(home).resolve()

    async def known(paths: Iterable[Path]) -> Steps:
        jobs = sorted({unquote(path.name) for path in paths})
        async with engine.connect() as connection:
            rows = await connection.execute(statements.STEPS, {"jobs": jobs})
            return {(row.job_id, row.step): StoredStep(row.open, row.ended_at) for row in rows}

    async def checkpoints_found(*, ours: bool) -> Sequence[RemovalCandidate]:
        jobs = await asyncio.to_thread(subfolders, checkpoints)
        return await asyncio.to_thread(_attempts, jobs, await known(jobs), ours)

    async def logs_found() -> Sequence[RemovalCandidate]:
        jobs = await asyncio.to_thread(subfolders, logs)
        return await asyncio.to_thread(_logs, jobs, await known(jobs))

    async def empty_found() -> Sequence[RemovalCandidate]:
        return await asyncio.to_thread(_empty, [*subfolders(checkpoints), *subfolders(logs)])

    async def temporary_found() -> Sequence[RemovalCandidate]:
        folders = await asyncio.to_thread(subfolders, temporary)  # before the leases: a run has its lease first
        async with engine.connect() as connection:
            leases = (await connection.execute(statements.LEASES)).scalars().all()
        return await asyncio.to_thread(_temporary, folders, leases)

    async def cache_found() -> Sequence[RemovalCandidate]:
        async with engine.connect() as connection:
            since: datetime | None = await connection.scalar(statements.OLDEST_START)
        return await asyncio.to_thread(downloads, cache, since)

    async def erased_found() -> Sequence[RemovalCandidate]:
        return await asyncio.to_thread(erased_copies, cache, settings.artifacts_uri)

    return (
        Files("checkpoints", policy.checkpoints, lambda: checkpoints_found(ours=True)),
        Files("unknown-checkpoints", policy.unknown_checkpoints, lambda: checkpoints_found(ours=False)),
        Files("step-logs", policy.step_logs, logs_found),
        Files("temporary", policy.temporary, temporary_found),
        Files("empty-folders", _EMPTY, empty_found),
        Files("cache", policy.cache, cache_found),
        Files("erased-copies", _AT_ONCE, erased_found),
    )


def _attempts(jobs: Sequence[Path], steps: Steps, ours: bool) -> list[RemovalCandidate]:
    """Folders of attempts. Those of a step with an open attempt are referenced, since it may continue from any of them."""
    found = []
    for job in jobs:
        for folder in subfolders(job):
            step = steps.get((unquote(job.name), unquote(folder.name)))
            if (step is not None) != ours:
                continue
            referenced, ended_at = (step.open, step.ended_at) if step else (False, None)
            found += [measured(one, referenced=referenced, at=ended_at) for one in subfolders(folder)]
    return [one for one in found if one is not None]


def _logs(jobs: Sequence[Path], steps: Steps) -> list[RemovalCandidate]:
    found = []
    for job in jobs:
        for folder in subfolders(job):
            step = steps.get((unquote(job.name), unquote(folder.name)))
            found += [measured(one, referenced=step is not None and step.open) for one in _logs_in(folder)]
    return [one for one in found if one is not None]


def _logs_in(folder: Path) -> list[Path]:
    """The logs of a step's attempts, and the folder of its event files."""
    return [*sorted(folder.glob("*.log")), *(one for one in subfolders(folder) if one.name == EVENT_FILES)]


def _empty(jobs: Sequence[Path]) -> list[RemovalCandidate]:
    """Empty folders of jobs and steps."""
    found = [measured(folder) for job in jobs for folder in (*subfolders(job), job) if is_empty(folder)]
    return [one for one in found if one is not None]


def _temporary(folders: Sequence[Path], leases: Collection[str]) -> list[RemovalCandidate]:
    found = (measured(one, referenced=any(lease.startswith(one.name) for lease in leases)) for one in folders)
    return [one for one in found if one is not None]


def erased_copies(cache: Path, artifacts: str) -> list[RemovalCandidate]:
    """Copies of artifacts from which rows were erased in the store; a step that reads one begins again with what remains."""
    copies = [copy for shelf in subfolders(cache / "artifacts") for copy in subfolders(shelf)]
    if not copies:
        return []
    erased = Erasures(artifacts).artifacts()
    found = [measured(copy) for copy in copies if copy.name in erased]
    return [one for one in found if one is not None]


def downloads(cache: Path, since: datetime | None) -> list[RemovalCandidate]:
    """Downloads with the time of their last use; those used after `since`, when the oldest running step began, are referenced.

    They include unfinished downloads that nobody has written to for a while.
    """
    entries: list[Path] = []
    for name in ("references", "hub", "datasets", "tmp"):
        entries += subfolders(cache / name)
    for shelf in subfolders(cache / "artifacts"):
        entries += subfolders(shelf)
    entries += sorted((cache / "digests").glob("*"))
    used = (measured(one) for one in entries)
    needed = datetime.max.replace(tzinfo=UTC) if since is None else since
    return [RemovalCandidate(one.path, one.at, one.size, one.at >= needed) for one in used if one is not None]
