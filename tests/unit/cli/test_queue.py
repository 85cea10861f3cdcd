"""The queue on terminals of 60 and 80 columns, and durations in words."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from services.cli import output
from services.cli.queue import in_words, print_queue
from services.orchestrator.queue import Duration, Durations, OpenAttempt
from services.orchestrator.queue_view import queue_view

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def attempt(job_id: str, waited: float, *, started: bool = False) -> OpenAttempt:
    at = NOW - timedelta(seconds=waited)
    return OpenAttempt(
        job_id, "evaluate-base", 1, "evaluate", "/m", "relaycore", 0, at, None, at if started else None, None, False, None,
        None,
    )  # fmt: skip


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_shows_every_job_whole_within_its_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    written = io.StringIO()
    monkeypatch.setattr(output, "out", Console(file=written, force_terminal=True, width=columns, color_system=None))
    job_ids = [f"01938b4c-5b1e-7c3a-9d2f-00000000000{number}" for number in range(3)]
    here = [attempt(job_ids[0], 200, started=True), attempt(job_ids[1], 100), attempt(job_ids[2], 50)]
    print_queue(queue_view(here, Durations([Duration("evaluate", "/m", 385)]), NOW, 10))
    text = written.getvalue()
    assert all(job_id in text for job_id in job_ids)
    assert "starts in 3 min 5 s" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.6, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (3600, "1 h"), (273_600, "3 d 4 h")],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == said
