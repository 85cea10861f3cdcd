"""A worker process for tests that kill it: `python -m tests.lone_worker DATABASE_URL NAME HOME LEASE_SECONDS`."""

import asyncio
import sys
from pathlib import Path

from services.chassis.executor.supervise import SubprocessRunner
from tests.executor import Executor


async def main(database_url: str, name: str, home: str, lease_seconds: str) -> None:
    """Work with real children until killed."""
    executor = Executor(database_url, Path(home), name=name)
    async with executor.working(SubprocessRunner("tests.child"), lease_seconds=float(lease_seconds)):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
