"""One run measures everything, arms in turns, on real Kafka and PostgreSQL with fsync on: `make bench`, `make bench BENCH=edge`."""

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import claims, full_loop, growth, latency, rebuild, registration, report, search, serving
from benchmarks.edge import measure as edge
from benchmarks.edge import sse
from benchmarks.full_loop import Servers
from benchmarks.trainer import estimate_error, progress
from benchmarks.trainer import measure as training
from services.chassis.kafka import topics
from services.chassis.process.gc_tuning import spare_the_collector
from services.devstack.settings import DevStackSettings
from services.devstack.stack import DevStack, running

PARTS = {
    "events": ("rebuild", "full_loop", "latency_ms", "growth"),
    "edge": ("http", "sse"),
    "trainer": ("sft", "dpo", "progress", "claims", "estimate_error"),
    "registry": ("registration", "search", "serving"),
}


def main() -> int:
    """Measure and return exit code 0, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "subject",
        nargs="?",
        choices=PARTS,
        default="events",
        help="events: the bus; edge: answers over HTTP; trainer; registry",
    )
    parser.add_argument("--quick", action="store_true", help="few events and one round: to see that it runs")
    parts = [part for of in PARTS.values() for part in of]
    parser.add_argument("--only", choices=parts, action="append", help="only this part of the subject; may be given again")
    parser.add_argument("--out", type=Path, help="where the figures go; default: var/bench/SUBJECT.json")
    arguments = parser.parse_args()
    if strange := set(arguments.only or ()) - set(PARTS[arguments.subject]):
        parser.error(f"{', '.join(sorted(strange))}: no part of {arguments.subject}")
    out = arguments.out or Path(f"var/bench/{arguments.subject}.json")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # aiokafka warns of every partition that has no leader yet
    spare_the_collector()
    figures: dict[str, Any] = {}
    rates: dict[str, list[float]] = {}
    for part in arguments.only or PARTS[arguments.subject]:
        print(f"==> {part}", flush=True)
        if part == "estimate_error":
            figures |= estimate_error.measure(arguments.quick)
            continue
        if part == "progress":
            figures |= progress.measure(arguments.quick)
            continue
        if part in ("sft", "dpo"):
            figures[part] = training.measure(part, pairs=1 if arguments.quick else 5, quick=arguments.quick)
            continue
        with tempfile.TemporaryDirectory() as home:  # a separate log, because a rebuild reads all of it
            settings = DevStackSettings(home=Path(home), kafka_bootstrap=None, database_url=None)
            with running(settings) as stack:
                asyncio.run(_measure(part, stack, arguments.quick, figures, rates))
    if "sft" in figures:
        figures["startup_seconds"] = figures["sft"].pop("startup_seconds")
    report.print_report(figures, rates)
    report.write({**figures, "rates": rates} if rates else figures, out)
    print(f"written: {out}")
    return 0


async def _measure(part: str, stack: DevStack, quick: bool, figures: dict[str, Any], rates: dict[str, list[float]]) -> None:
    await topics.apply(stack.cluster)
    servers = Servers(stack.kafka_bootstrap, stack.database_url)
    if part == "http":
        figures |= await edge.measure(servers, rounds=1 if quick else 5, seconds=1 if quick else 3)
    elif part == "claims":
        figures["claim_growth_10_to_1000"] = await claims.growth(
            servers, rounds=2 if quick else 5, claims=30 if quick else 200
        )
    elif part == "registration":
        figures["registration_growth"] = await registration.growth(
            servers, rounds=3 if quick else 20, many=500 if quick else registration.MANY
        )
    elif part == "serving":
        figures |= await serving.measure(servers, quick)
    elif part == "search":
        figures["page_growth"] = await search.growth(servers, rounds=5 if quick else 40, many=3000 if quick else 100_000)
    elif part == "sse":
        figures[part] = await sse.measure(servers, clients=100 if quick else 1000, seconds=3 if quick else 15)
    elif part == "full_loop":
        rounds, events, few = (1, 10_000, 500) if quick else (5, 40_000, 1_500)
        rates |= await full_loop.measure(servers, rounds=rounds, events=events, events_per_message=few)
        figures[part] = full_loop.summary(rates)
    elif part == "latency_ms":
        found = latency.summary(await latency.measure(servers, rounds=1 if quick else 3, seconds=3 if quick else 10))
        figures[part] = {**found[f"{latency.RATES[0]}/s"], "rates": found}
        busy = latency.RATES[-1]
        figures[f"latency_{busy}_ms"] = {
            name: ratio for name, ratio in found[f"{busy}/s"].items() if name.startswith("ratio")
        }
    elif part == "rebuild":
        figures[part] = rebuild.summary(
            await rebuild.measure(servers, rounds=1 if quick else 3, events=5_000 if quick else 50_000)
        )
    else:
        figures[part] = growth.summary(await growth.measure(servers, events=60_000 if quick else 1_000_000))


if __name__ == "__main__":
    sys.exit(main())
