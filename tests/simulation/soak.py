"""Thousands of seeds, or one again: `make soak`, `python -m tests.simulation.soak --seed 4711`."""

import argparse
import sys
import time

from tests.simulation.run import Run, Unsound
from tests.simulation.variants import SOUND, VARIANTS

_SHOWN = 100


def main() -> int:
    """Exit code 1 when a run is unsound; its seed and what happened last are printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5000, help="so many runs")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one only, with everything that happened")
    parser.add_argument("--variant", choices=sorted(VARIANTS), help="leave this rule out")
    arguments = parser.parse_args()
    variant = VARIANTS[arguments.variant] if arguments.variant else SOUND
    if arguments.seed is not None:
        run = Run(arguments.seed, variant)
        try:
            run.go()
        finally:
            print("\n".join(run.trace))
        print("sound")
        return 0
    begun, steps, records, unsound = time.monotonic(), 0, 0, 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        run = Run(seed, variant)
        try:
            run.go()
        except Unsound as fault:
            unsound += 1
            print(fault, flush=True)
        steps += run.steps
        records += sum(map(len, run.log.partitions.values()))
        if (seed - arguments.first + 1) % (arguments.seeds // _SHOWN * 10 or arguments.seeds) == 0:
            print(f"{seed - arguments.first + 1} runs, {unsound} unsound", flush=True)
    seconds = time.monotonic() - begun
    print(f"{arguments.seeds} seeds, {steps:,} steps, {records:,} records, {unsound} unsound, {seconds:.0f} s")
    return 1 if unsound else 0


if __name__ == "__main__":
    sys.exit(main())
