"""Removes expired log files and downloads of the development stack and the commands from the user's machine."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.chassis.executor.retention import downloads
from services.chassis.storage.retention.decision import RemovalCandidate
from services.chassis.storage.retention.files import Files, measured
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.retention.run import RemovedAmount, Remover

_OLD = ".old.log"


def removers(home: Path, cache: Path, policy: RetentionSettings) -> Sequence[Remover]:
    """The removers for the stack of `home` and for the user's cache, except jars and the demo's base model."""
    logs, fetched_to = home.resolve() / "logs", cache.resolve()

    async def old_logs() -> Sequence[RemovalCandidate]:
        return await asyncio.to_thread(_old_logs, logs)

    async def fetched() -> Sequence[RemovalCandidate]:
        return await asyncio.to_thread(downloads, fetched_to, None)

    return (
        Files("stack-logs", policy.stack_logs, old_logs),
        LongLogs(logs, round(policy.stack_logs_mb * 10**6)),
        Files("user-cache", policy.cache, fetched),
    )


def _old_logs(folder: Path) -> list[RemovalCandidate]:
    found = (measured(path) for path in sorted(folder.glob(f"*{_OLD}")))
    return [one for one in found if one is not None]


@dataclass(frozen=True)
class LongLogs:
    """Truncates long log files while their server runs and appends to them; one old copy of each is kept."""

    folder: Path
    most: int
    """Bytes."""
    kind: str = "long-stack-logs"

    async def apply(self, *, dry: bool) -> RemovedAmount:
        """Copy and truncate. Lines written in between are lost; if the copy fails, the log is left unchanged."""
        return await asyncio.to_thread(self._cut, dry)

    def _cut(self, dry: bool) -> RemovedAmount:
        count = size = 0
        for path in sorted(self.folder.glob("*.log")):
            if path.name.endswith(_OLD) or path.is_symlink() or (length := path.stat().st_size) <= self.most:
                continue
            if not dry:
                kept = path.with_suffix(_OLD)
                temporary = kept.with_suffix(".copying")
                try:
                    shutil.copyfile(path, temporary)
                    temporary.replace(kept)
                finally:
                    temporary.unlink(missing_ok=True)
                with path.open("r+b") as file:
                    file.truncate(0)
            count, size = count + 1, size + length
        return RemovedAmount(count, size)
