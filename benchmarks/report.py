"""The figures as a table for people and as JSON for programs, with what is needed to judge them."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

READS = ("job", "jobs", "models", "progress", "health")
GOALS: Sequence[tuple[str, str, str, str, float]] = (
    ("full_loop", "ratio_native", "full loop, of a native twin's speed", "at least", 0.7),
    ("full_loop", "ratio_per_message", "full loop, times the usual handler's speed", "at least", 15),
    ("latency_ms", "p50", "request to step, median, ms", "at most", 15),
    ("latency_ms", "p99", "request to step, 99th percentile, ms", "at most", 50),
    ("latency_ms", "ratio_bare_p50", "request to step, times the bare loop's median", "at most", 3),
    ("latency_ms", "ratio_bare_p99", "request to step, times the bare loop's 99th percentile", "at most", 3),
    ("latency_200_ms", "ratio_bare_p50", "the same at 200 a second, median", "at most", 3),
    ("latency_200_ms", "ratio_bare_p99", "the same at 200 a second, 99th percentile", "at most", 3),
    ("rebuild", "ratio_copy", "rebuild, of the speed of consume and COPY", "at least", 0.5),
    ("growth", "cost_per_event_10k_to_1m", "cost of an event, late against early", "at most", 1.2),
    *(("reads", name, f"{name} over HTTP, of a bare route's requests per second", "at least", 0.6) for name in READS),
    ("", "claim_growth_10_to_1000", "cost of a claim with 1,000 attempts waiting, times that with 10", "at most", 1.2),
    ("", "registration_growth", "cost of the 10,000th version of a model, times that of the tenth", "at most", 1.2),
    *(
        ("serving", f"ratio_bare_{clients}", f"tokens a second to {clients} clients, of the bare server's", "at least", 0.9)
        for clients in (1, 8, 32)
    ),
    ("", "cold_ready_seconds", "a version that answers, from the wish, s", "at most", 60),
    ("", "switch_seconds", "callers get the version that is kept warm, from the rollback, s", "at most", 2),
    ("", "failed_requests_during_rollout", "requests that failed while versions changed", "at most", 0),
    ("", "page_growth", "filtered page of 100,000 versions, times that of 1,000", "at most", 2),
    *((name, "ratio_bare", f"{name}, of bare TRL's tokens per CPU second", "at least", 0.99) for name in ("sft", "dpo")),
    *(
        (name, "loss_difference", f"{name}, largest difference of a loss to bare TRL, fp32", "at most", 1e-5)
        for name in ("sft", "dpo")
    ),
    ("", "startup_seconds", "start of a training beyond imports and loading, s", "at most", 2),
    ("", "progress_milliseconds", "a progress event, processor time of the training, ms", "at most", 1),
    ("", "start_per_s", "accepted starts a second", "at least", 200),
    ("sse", "p50_ratio", "one job read with 1,000 streams open, times the same without", "at most", 3),
)


def spread(values: Sequence[float]) -> str:
    """Return median, minimum and maximum."""
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def print_report(figures: Mapping[str, Any], rates: Mapping[str, Sequence[float]]) -> None:
    """Print the rates of the arms, then each figure with its goal."""
    console = Console(width=110)
    table = Table("arm", "events per second: median (least to most)", box=None, header_style="bold")
    for arm, values in rates.items():
        table.add_row(arm, spread(values))
    console.print(table)
    table = Table("figure", "measured", "goal", "", box=None, header_style="bold")
    for group, name, meaning, bound, goal in GOALS:
        found = figures.get(group, {}) if group else figures
        if name in found:
            value = found[name]
            met = value >= goal if bound == "at least" else value <= goal
            table.add_row(
                meaning,
                f"{value:.2f}" if value >= 0.005 or not value else f"{value:.0e}",
                f"{bound} {goal:g}",
                "met" if met else "missed",
            )
    for name in figures.get("reads", {}).keys() - set(READS):
        table.add_row(f"{name} over HTTP, the same", f"{figures['reads'][name]:.2f}", "", "")
    for rate, found in figures.get("latency_ms", {}).get("rates", {}).items():
        said = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        table.add_row(f"at {rate}", said, "", "")
    console.print(table)


def write(figures: Mapping[str, Any], path: Path) -> None:
    """Write the figures with date, machine and versions."""
    surroundings = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}",
        "versions": {name: version(name) for name in ("neuroweaver", "aiokafka", "asyncpg", "sqlalchemy", "faststream")},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**figures, "surroundings": surroundings}, indent=2) + "\n")
