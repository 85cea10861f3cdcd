"""The real orchestrator as it is deployed, in a process of its own."""

import asyncio
import sys

from services.chassis.process.gc_tuning import spare_the_collector
from services.chassis.process.logging import configure
from services.cli.serve import build, settings_of


async def main(bootstrap: str, database_url: str) -> None:
    """Run the orchestrator until standard input ends."""
    service = build("orchestrator", settings_of("orchestrator", kafka_bootstrap=bootstrap, database_url=database_url))
    async with service.lifespan():
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    configure("WARNING")
    spare_the_collector()
    asyncio.run(main(*sys.argv[1:]))
