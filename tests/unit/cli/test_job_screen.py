"""What a person sees of a running job, on a terminal and elsewhere."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from services.cli.edge import StreamEvent
from services.cli.job_screen import LiveScreen, PlainScreen, numbers, screen, show
from services.cli.printable import printable
from services.orchestrator.domain.state import JobState
from services.orchestrator.queries import JobRow
from services.orchestrator.rendering import job_progress, job_view
from services.orchestrator.views import StepProgress
from tests.unit.orchestrator.scenario import JobScenario


def stream_event(scenario: JobScenario) -> StreamEvent:
    state = scenario.state
    assert isinstance(state, JobState)
    view = job_view(JobRow(scenario.job_id, state, 1, datetime(2030, 1, 1, tzinfo=UTC)))
    return StreamEvent("job", view.model_dump(mode="json"), "1")


def progress(**fields: Any) -> StreamEvent:
    step = StepProgress(step="prepare", kind="prepare", status="running", attempt=1, unit="rows", **fields)
    return StreamEvent("progress", step.model_dump(mode="json"), None)


def a_console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def written(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(("terminal", "kind"), [(True, LiveScreen), (False, PlainScreen)])
def test_bars_are_for_terminals(terminal: bool, kind: type) -> None:
    assert isinstance(screen(a_console(terminal), json=False), kind)


def test_elsewhere_a_line_tells_each_change_and_each_tenth_of_the_way() -> None:
    console, scenario = a_console(terminal=False), JobScenario()
    scenario.requested()
    with screen(console, json=False) as shown:
        show(shown, stream_event(scenario))
        show(shown, stream_event(scenario))
        scenario.started("prepare")
        show(shown, stream_event(scenario))
        for done in (1, 2, 50, 51):
            show(shown, progress(done=done, of=100))
        scenario.failed("prepare", 1)
        show(shown, stream_event(scenario))
    assert written(console).splitlines() == [
        "○ prepare: queued",
        "● prepare: running",
        "  prepare: 50/100 rows",
        "○ prepare: queued (attempt 2)",
    ]


def test_on_a_terminal_every_step_has_a_bar() -> None:
    console, scenario = a_console(terminal=True), JobScenario()
    scenario.requested()
    with screen(console, json=False) as shown:
        show(shown, stream_event(scenario))
        show(shown, progress(done=1, of=2, loss=0.25))
        scenario.completed("prepare")
        show(shown, stream_event(scenario))
    text = written(console)
    assert all(step in text for step in ("prepare", "evaluate-base", "train", "register"))
    assert "1/2 rows, loss 0.25" in text


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = JobScenario()
    scenario.requested()
    with screen(a_console(terminal=True), json=True) as shown:
        show(shown, stream_event(scenario))
        show(shown, progress(done=1, of=2))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith('{"event":"job","data":{"job_id":"job-1","status":"running"')
    assert second.startswith('{"event":"progress","data":{"step":"prepare"')


def test_numbers_say_how_far_how_well_how_fast_and_how_long_still() -> None:
    step = StepProgress.model_validate(progress(done=3, of=9, loss=0.123456, tokens_per_second=99.6, eta_seconds=75.2).data)
    assert numbers(step) == "3/9 rows, loss 0.1235, 100 tokens/s, 0:01:15 left"


def test_nothing_that_others_wrote_steers_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\tc") == "a\\x1b[31mb\\x07\tc"


def test_progress_tells_every_step_of_the_plan() -> None:
    scenario = JobScenario()
    scenario.requested()
    view = job_progress(JobRow(scenario.job_id, scenario.state, 1, scenario.now), [])
    assert [(step.step, step.status, step.attempt) for step in view.steps][:2] == [
        ("prepare", "queued", 1), ("evaluate-base", "waiting", 0),
    ]  # fmt: skip
