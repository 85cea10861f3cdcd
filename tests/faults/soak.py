"""The long form: every scenario with its repetitions, a million events in all, and a table of what was found: `make soak`."""

import argparse
import asyncio
import json
import logging
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import structlog

from services.devstack.settings import DevStackSettings
from services.devstack.stack import DevStack, running
from tests.conftest import create_topics
from tests.e2e.system import running_system
from tests.executor import Executor
from tests.faults.executor_disk import SIZE, FullDisk, full_again_and_again
from tests.faults.field import field_on
from tests.faults.history import Verdict
from tests.faults.rebalance import CHANGES, Stall, stalls
from tests.faults.scale import Scale, Scenario
from tests.faults.scenarios import FULL_DISK, SCENARIOS, full_disk
from tests.faults.small_disk import on_small_disk, small_disk, why_not

_KILLS = 10
_BOUNCES = 5
_FULL_DISK_EVENTS = 20_000
MEMBERSHIP = "the group's members change"
_ROUNDS = 5
EXECUTOR = "an executor's disk is full"
_EXECUTOR_ROUNDS = 20
AT_ONCE = "more jobs at once than workers"
_JOBS, _JOB_ROUNDS = 5, 4
_BEYOND_SESSION_SECONDS = 2.0
"""The promise: whatever happens to a member, no request waits for longer than a session and this time."""


@dataclass
class Result:
    """The result of one scenario."""

    scenario: str
    repetitions: int
    events: int
    lost: int
    doubled: int
    out_of_order: int
    unseen: int
    differences: int
    seconds: float

    @property
    def well(self) -> bool:
        """Whether events were sent and no fault was found."""
        return self.events > 0 and not (self.lost or self.doubled or self.out_of_order or self.unseen or self.differences)


def main() -> int:
    """Run the scenarios; return exit code 1 if a history has a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="so many in all")
    parser.add_argument("--repetitions", type=int, help="so often, instead of five or ten times")
    parser.add_argument("--only", help="only scenarios whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("var/soak/faults.json"), help="where the result goes")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # absent brokers are intended here
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    names = [name for name in (*SCENARIOS, FULL_DISK) if not arguments.only or arguments.only in name]
    full = FULL_DISK in names
    each = max(1, math.ceil((arguments.events - _FULL_DISK_EVENTS * full) / max(1, len(names) - full)))
    results = []
    for name in names:
        if name == FULL_DISK and (reason := why_not()):
            print(f"{name}: left out, {reason}", flush=True)
            continue
        results.append(_run(name, each, arguments.repetitions))
        print(row(results[-1]), flush=True)
    if results:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
        print(f"\n{table(results)}")
    well = [result.well for result in results]
    for name, measure in ((MEMBERSHIP, _membership), (EXECUTOR, _executor), (AT_ONCE, _at_once)):
        if not arguments.only or arguments.only in name:
            well.append(measure())
    return 0 if well and all(well) else 1


def _membership() -> bool:
    """Print the cost of changes of the group's members; returns whether every stall is within the promise."""

    async def measured(stack: DevStack, home: Path) -> tuple[list[Stall], float]:
        async with field_on(stack, home) as field:
            return await stalls(field, list(CHANGES), _ROUNDS), field.toy.settings.session_timeout_ms / 1000

    with tempfile.TemporaryDirectory() as home, _servers(MEMBERSHIP, Path(home)) as stack:
        found, session = asyncio.run(measured(stack, Path(home)))
    print(f"\n{_ROUNDS} rounds, session time-out {session:g} s\n")
    print("| a member | longest wait of a request, s | others said not ready, s | refusals |\n| --- | ---: | ---: | ---: |")
    for change in CHANGES:
        of = [stall for stall in found if stall.change == change]
        longest, unready = max(stall.seconds for stall in of), max(stall.unready for stall in of)
        print(f"| {change} | {longest:.1f} | {unready:.1f} | {sum(stall.refusals for stall in of)} |")
    return all(stall.seconds <= session + _BEYOND_SESSION_SECONDS and not stall.refusals for stall in found)


def _executor() -> bool:
    """Print the cost of an executor's full disk; returns whether nothing was lost of any step."""
    if reason := why_not():
        print(f"{EXECUTOR}: left out, {reason}", flush=True)
        return True

    async def measured(stack: DevStack, disk: Path) -> FullDisk:
        executor = Executor(stack.database_url, disk / "home", disk_reserve_mb=1)
        await executor.create()
        return await full_again_and_again(executor, disk, _EXECUTOR_ROUNDS)

    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as home,
        small_disk(Path(home) / "disk", SIZE) as disk,
        _servers(EXECUTOR, Path(home)) as stack,
    ):
        found = asyncio.run(measured(stack, disk))
    print(f"\n{EXECUTOR}: {found} in {time.monotonic() - begun:.0f} s", flush=True)
    return found.well


def _at_once() -> bool:
    """Print the results of jobs that really train and start at the same time; returns whether each made its own version."""
    begun, versions = time.monotonic(), list[str]()
    with tempfile.TemporaryDirectory() as name, _servers(AT_ONCE, Path(name)) as stack:
        home, base_model = Path(name), Path(name) / "tiny"
        subprocess.run([sys.executable, "-m", "tests.tiny_model", str(base_model)], check=True)
        with running_system(stack, home, base_model) as system:
            for _ in range(_JOB_ROUNDS):
                versions += system.made_at_once(_JOBS)
    print(
        f"\n{AT_ONCE}: {len(set(versions))} versions of {len(versions)} jobs in {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return len(set(versions)) == _JOBS * _JOB_ROUNDS


def _run(name: str, events: int, repetitions: int | None) -> Result:
    scenario: Scenario = full_disk if name == FULL_DISK else SCENARIOS[name]
    repetitions = repetitions or (_KILLS if name.startswith("SIGKILL") else _BOUNCES)
    scale = Scale(1, _FULL_DISK_EVENTS) if name == FULL_DISK else Scale(repetitions, events)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as home, _servers(name, Path(home)) as stack:
        verdict = asyncio.run(_on(stack, Path(home), scenario, scale))
    if not verdict.well:
        print(f"{name}: {verdict}", flush=True)
    return Result(
        scenario=name,
        repetitions=scale.repetitions,
        events=verdict.events,
        lost=len(verdict.lost),
        doubled=len(verdict.doubled),
        out_of_order=len(verdict.out_of_order),
        unseen=len(verdict.unseen),
        differences=verdict.differences,
        seconds=round(time.monotonic() - begun, 1),
    )


@contextmanager
def _servers(name: str, home: Path) -> Iterator[DevStack]:
    """Run new servers for each scenario, so that none must read the log of another."""
    if name == FULL_DISK:
        with on_small_disk(home / "stack") as stack:
            yield stack
        return
    with running(DevStackSettings(home=home / "stack", kafka_bootstrap=None, database_url=None)) as stack:
        create_topics(stack)
        yield stack


async def _on(stack: DevStack, home: Path, scenario: Scenario, scale: Scale) -> Verdict:
    async with field_on(stack, home) as field:
        return await scenario(field, scale)


def row(result: Result) -> str:
    """Return one line of the table."""
    return (
        "| "
        + " | ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in asdict(result).values())
        + " |"
    )


def table(results: list[Result]) -> str:
    """Return the table as Markdown, with date and machine."""
    machine = f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"
    events = sum(result.events for result in results)
    seconds = sum(result.seconds for result in results)
    head = (
        "| scenario | repetitions | events | lost | doubled | out of order | unseen | differences | seconds |\n| --- |"
        + " ---: |" * 8
    )
    said = f"{datetime.now(UTC):%Y-%m-%d}, {machine}: {events:,} events in {seconds / 60:.0f} minutes"
    return "\n".join([said, "", head, *map(row, results)])


if __name__ == "__main__":
    sys.exit(main())
