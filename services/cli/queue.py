"""`neuroweaver queue`: which steps run and which wait for a worker, in order, with the expected start."""

from datetime import datetime, timedelta

from services.cli.edge import Edge
from services.cli.output import print_json, print_line, print_table, say
from services.cli.printable import printable
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.orchestrator.queue_view import QueuedAttempt, QueueView, RunningAttempt, WaitingAttempt

_COLUMNS = ("#", "job", "step", "state", "waits", "priority", "requester", "executor")
_LEAST = ("executor", "requester", "priority", "waits")
"""Columns that a narrow terminal leaves out, the least needed first."""


def show_queue(limit: int, json: bool) -> None:
    """Ask for the queue and print it."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        queue = edge.get(QueueView, "/queue", limit=limit)
    if json:
        print_json(queue)
    else:
        print_queue(queue)


def print_queue(queue: QueueView) -> None:
    """Print the queue as a table."""
    if not queue.running_total and not queue.waiting_total:
        print_line("No step runs and none waits for a worker.")
        return
    rows = [_row(queue, "", one, _runs(queue, one)) for one in queue.running]
    rows += [_row(queue, str(one.place), one, _waits(queue, one)) for one in queue.waiting]
    print_table(_COLUMNS, rows, least=_LEAST)
    left_out = queue.waiting_total - len(queue.waiting) + queue.running_total - len(queue.running)
    if left_out:
        say(f"{left_out} more are not shown; --limit shows up to 1000 of each executor.")
    for reason in dict.fromkeys(one.unknown for one in queue.waiting if one.unknown):
        say(f"Some starts are unknown: {reason}.")


def _row(queue: QueueView, place: str, one: QueuedAttempt, state: str) -> tuple[str, ...]:
    waits = "" if isinstance(one, RunningAttempt) else in_words(queue.at - one.requested_at)
    step = one.step if one.attempt == 1 else f"{one.step} (attempt {one.attempt})"
    texts = (place, one.job_id, step, state, waits, str(one.priority), one.requester, one.executor)
    return tuple(printable(text) for text in texts)


def _runs(queue: QueueView, one: RunningAttempt) -> str:
    return "runs" if one.expected_end is None else f"runs, ends {_in(queue.at, one.expected_end)}"


def _waits(queue: QueueView, one: WaitingAttempt) -> str:
    return "start unknown" if one.expected_start is None else f"starts {_in(queue.at, one.expected_start)}"


def _in(now: datetime, then: datetime) -> str:
    return "now" if then - now < timedelta(seconds=1) else f"in {in_words(then - now)}"


def in_words(duration: timedelta) -> str:
    """Return a duration in its two largest units: 45 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    seconds = max(0, round(duration.total_seconds()))
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{seconds} s"
