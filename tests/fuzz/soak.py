"""The fuzzer for as long as wanted, on servers of its own, with another seed in every round: part of `make soak`."""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import structlog

from services.devstack.settings import DevStackSettings
from services.devstack.stack import running
from tests.conftest import create_topics
from tests.fuzz.running import Fuzzed, fuzz
from tests.orchestrator import Orchestrator

_ROUND_RECORDS = 20_000
"""Records of a round, after which a new log begins, because each check reads the whole log."""


def main() -> int:
    """Run rounds; return exit code 1, with seed and reason, if anything stopped, failed or got no answer."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="for so long")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("faststream").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    ends = time.monotonic() + timedelta(hours=arguments.hours).total_seconds()
    seed = arguments.seed
    while True:
        try:
            found = asyncio.run(_round(seed, ends))
        except AssertionError as error:
            print(f"fuzz, seed {seed}: {error}", file=sys.stderr)
            return 1
        letters = ", ".join(f"{count} {state}" for state, count in sorted(found.letters.items()))
        print(
            f"fuzz, seed {seed}: {found.records} records, {len(found.asked)} jobs answered, dead letters: {letters}; 0 differences"
        )
        seed += 1
        if time.monotonic() > ends:
            return 0


async def _round(seed: int, ends: float) -> Fuzzed:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with running(DevStackSettings(home=home / "stack", kafka_bootstrap=None, database_url=None)) as stack:
            create_topics(stack)
            orchestrator = Orchestrator(stack.kafka_bootstrap, stack.database_url, home)
            async with orchestrator.running():
                return await fuzz(
                    orchestrator,
                    home / "exports",
                    seed,
                    lambda found: found.records < _ROUND_RECORDS and time.monotonic() < ends,
                )


if __name__ == "__main__":
    sys.exit(main())
