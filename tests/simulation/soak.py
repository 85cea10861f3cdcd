"""Thousands of seeds, or one again: `make soak`, `python -m tests.simulation.soak --seed 4711`."""

import argparse
import sys
import time
from collections import Counter

from tests.simulation.run import Unsound, run
from tests.simulation.variants import SOUND_VARIANT, VARIANTS


def main() -> int:
    """Run seeds; return exit code 1 if a run is unsound, after printing its seed and its last events."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5000, help="so many runs")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one only, with the last of what happened")
    parser.add_argument("--variant", choices=sorted(VARIANTS), help="leave this rule out")
    arguments = parser.parse_args()
    variant = VARIANTS[arguments.variant] if arguments.variant else SOUND_VARIANT
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    begun, events, steps, unsound, happened = time.monotonic(), 0, 0, 0, Counter[str]()
    for done, seed in enumerate(seeds, 1):
        try:
            summary = run(seed, variant)
        except Unsound as fault:
            unsound += 1
            print(fault, flush=True)
        else:
            events, steps = events + summary.events, steps + summary.steps
            happened.update(summary.happened)
            happened.update({f"letters {state}": number for state, number in summary.letters.items()})
        if done % 500 == 0:
            print(f"{done} runs, {unsound} unsound", flush=True)
    print(f"{len(seeds)} seeds, {time.monotonic() - begun:.0f} s, {events:,} events, {steps:,} steps, {unsound} unsound")
    print(", ".join(f"{name} {times:,}" for name, times in sorted(happened.items())))
    return 1 if unsound else 0


if __name__ == "__main__":
    sys.exit(main())
