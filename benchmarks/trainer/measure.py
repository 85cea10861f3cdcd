"""Runs the arms in turns, each in a process of its own, and compares them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from services.chassis.storage.cache import CacheSettings
from services.demo.base_model import install

_STEPS = {"sft": 16, "dpo": 6}
_STEPS_OF_LOSSES = 3


def measure(method: str, pairs: int, quick: bool) -> dict[str, Any]:
    """Return tokens per CPU second relative to bare TRL (the median over pairs of runs) and the largest difference of a loss in
    fp32."""
    base = install(CacheSettings().cache, print)
    steps = 2 if quick else _STEPS[method]
    ratios, startups = [], []
    for number in range(pairs):
        order = ("engine", "bare") if number % 2 == 0 else ("bare", "engine")
        found = {who: _run(who, method, steps, "auto", base) for who in order}
        ratios.append(found["bare"]["cpu_seconds"] / found["engine"]["cpu_seconds"])
        startups.append(found["engine"]["startup_seconds"])
        print(f"  {method}: {ratios[-1]:.3f} of bare TRL's tokens per CPU second", flush=True)
    exact = [_run(who, method, _STEPS_OF_LOSSES, "fp32", base)["losses"] for who in ("engine", "bare")]
    difference = max(abs(one - other) for one, other in zip(*exact, strict=True))
    return {
        "ratio_bare": median(ratios),
        "ratios": ratios,
        "loss_difference": difference,
        **({"startup_seconds": median(startups)} if method == "sft" else {}),
    }


def _run(who: str, method: str, steps: int, precision: str, base: Path) -> dict[str, Any]:
    command: Sequence[str] = (
        sys.executable, "-m", "benchmarks.trainer.arm", who, method, str(steps), precision, str(base),
    )  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made
