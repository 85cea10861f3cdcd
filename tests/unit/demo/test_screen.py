"""The demo says what it is doing, on a terminal in place and elsewhere now and then, and never scrolls endlessly."""

import io
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console

from services.demo.observed_job import ObservedJob
from services.demo.report import report
from services.demo.screen import LiveDemoScreen, PlainDemoScreen, closing_table, line, picture, screen
from tests.unit.demo.fabricated import finished
from tests.unit.demo.test_observed_job import (
    ACCEPTED,
    ASKED,
    REQUESTED,
    START,
    completed,
    failed,
    observed,
    progressed,
    started,
)


def drawn(job: ObservedJob, now: datetime = START, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(picture(job, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_step_of_the_plan_has_its_line_with_what_it_does_now() -> None:
    progress = progressed(4).model_copy(update={"loss": 1.23456, "tokens_per_second": 812.4, "eta_seconds": 75.0})
    text = drawn(observed(ASKED, ACCEPTED, REQUESTED, started(), progress), START + timedelta(seconds=13))
    assert "● prepare" in " ".join(text.split())
    assert "4/10 steps · 1:15 left · loss 1.235 · 812 tokens/s" in text
    assert "0:10" in text
    assert "· register" in " ".join(text.split())
    assert "13 s since the request, 5 events on 3 topics" in text


def test_a_narrow_terminal_shows_one_line_per_step_too() -> None:
    progress = progressed(4).model_copy(update={"loss": 1.23456, "tokens_per_second": 812.4, "eta_seconds": 75.0})
    assert len(drawn(observed(ASKED, ACCEPTED, started(), progress), width=60).splitlines()) == 3


def test_before_the_answer_of_the_orchestrator_the_screen_says_what_it_waits_for() -> None:
    assert "waiting for the orchestrator" in drawn(observed(ASKED))


def test_where_there_is_no_terminal_a_line_comes_on_news_and_every_twenty_seconds() -> None:
    lines: list[str] = []
    plain = PlainDemoScreen(lines.append)
    job = observed(ACCEPTED, started(), progressed(1))
    for second in range(60):
        plain.show(job, START + timedelta(seconds=second))
    assert len(lines) == 3
    assert lines[-1].split()[:3] == ["●", "prepare", "running"]
    plain.show(observed(ACCEPTED, started(), completed()), START + timedelta(seconds=60))
    assert lines[-1].split() == ["✓", "prepare", "done", "0:01"]
    plain.show(observed(ACCEPTED, started(), completed()), START + timedelta(seconds=90))
    assert len(lines) == 4


def test_a_step_that_no_service_takes_up_is_said_where_nothing_else_happens() -> None:
    lines: list[str] = []
    plain = PlainDemoScreen(lines.append)
    job = observed(ACCEPTED, REQUESTED)
    for second in range(30):
        plain.show(job, START + timedelta(seconds=second))
    assert [line.split(maxsplit=2) for line in lines] == [["○", "prepare", "queued  waiting for the trainer service"]] * 2
    assert "waiting for the trainer service" in drawn(job)


def test_a_retry_and_its_cause_are_said() -> None:
    lost = observed(ACCEPTED, started(1), failed(1)).steps["prepare"]
    assert line(lost, START).split() == ["✗", "prepare", "failed", "0:01", "lost"]
    again = observed(ACCEPTED, started(1), failed(1), started(2)).steps["prepare"]
    assert line(again, START + timedelta(seconds=9)).endswith("attempt 2")


def test_foreign_text_is_not_read_as_markup() -> None:
    out = io.StringIO()
    shown = screen(Console(file=out, width=200))
    assert isinstance(shown, PlainDemoScreen)
    job = observed(ACCEPTED, started(), failed())
    view = job.steps["prepare"]
    assert view.fault
    odd = replace(view, fault=view.fault.model_copy(update={"message": "[red]gone[/nothing]"}))
    shown.show(replace(job, steps={"prepare": odd}), START)
    assert "[red]gone[/nothing]" in out.getvalue()


def test_a_terminal_gets_bars_in_place() -> None:
    out = io.StringIO()
    shown = screen(Console(file=out, width=100, force_terminal=True))
    assert isinstance(shown, LiveDemoScreen)
    with shown:
        shown.show(observed(ASKED, ACCEPTED, started(), progressed(5)), START)
    assert "prepare" in out.getvalue()


def test_the_closing_table_names_every_stage(tmp_path: Path) -> None:
    found = report(finished("rlaif", tmp_path), "rlaif", rows=90, peak_memory_bytes=1)
    console = Console(file=io.StringIO(), width=90)
    console.print(closing_table(found))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "90 held-out requests" in text
    assert [word for word in ("base", "after SFT", "after RLAIF") if word in text] == ["base", "after SFT", "after RLAIF"]
