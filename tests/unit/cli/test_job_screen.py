"""What a person sees of a running job, on a terminal and elsewhere."""

import io
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from rich.console import Console

from services.cli.edge import StreamEvent
from services.cli.job_screen import LiveScreen, PlainScreen, screen, show
from services.cli.printable import printable
from services.cli.step_lines import SIGNS, counted, numbers, screen_lines
from services.orchestrator.domain.state import JobState
from services.orchestrator.queries import JobRow
from services.orchestrator.rendering import job_progress, job_view
from services.orchestrator.views import StepProgress, StepStatus
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
    assert "1/2 rows" in text


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = JobScenario()
    scenario.requested()
    with screen(a_console(terminal=True), json=True) as shown:
        show(shown, stream_event(scenario))
        show(shown, progress(done=1, of=2))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith('{"event":"job","data":{"job_id":"job-1","status":"running"')
    assert second.startswith('{"event":"progress","data":{"step":"prepare"')


FIELDS: dict[str, Any] = {
    "done": 30, "of": 90, "loss": 0.123456, "gradient_norm": 1.23456, "tokens_per_second": 1234.4, "memory_bytes": 2_340_000_000,
    "eta_seconds": 75.2, "losses": [4.0, 3.0, 2.0, 1.0],
}  # fmt: skip


def test_numbers_say_how_far_how_well_how_fast_and_how_long_still() -> None:
    step = StepProgress.model_validate(progress(**FIELDS).data)
    assert counted(step) == "30/90 rows"
    assert numbers(step) == ["loss 0.1235", "gradient 1.23", "1,234 tokens/s", "2.3 GB", "0:01:15 left"]
    assert numbers(step, sparks=20)[0] == "loss 0.1235 █▆▃▁"


def lines(width: int, name: str = "prepare") -> list[str]:
    """What a screen of this width shows of a job whose first step runs and whose other steps wait."""
    scenario = JobScenario()
    scenario.requested()
    scenario.started("prepare")
    view = job_view(JobRow(scenario.job_id, scenario.state, 1, datetime(2030, 1, 1, tzinfo=UTC)))
    steps = [view.steps[0].model_copy(update={"name": name}), *view.steps[1:]]
    reported = StepProgress.model_validate(progress(**FIELDS).data)
    return [line.plain for line in screen_lines(steps, {name: reported}, width)]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("name", ["prepare", "prepare-" * 15])
def test_no_line_is_wider_than_the_screen(width: int, name: str) -> None:
    assert all(len(line) <= width for line in lines(width, name))


def test_60_columns_hold_a_running_step_on_three_lines() -> None:
    assert lines(60)[:4] == [
        "● prepare       ━━━━━━━━━━━━ 30/90 rows",
        "  loss 0.1235 █▆▃▁ · gradient 1.23 · 1,234 tokens/s · 2.3 GB",
        "  0:01:15 left",
        "· evaluate-base ━━━━━━━━━━━━ waiting",
    ]


def test_a_wide_screen_holds_it_on_two() -> None:
    assert lines(100)[1] == "  loss 0.1235 █▆▃▁ · gradient 1.23 · 1,234 tokens/s · 2.3 GB · 0:01:15 left"


def test_a_retry_begins_with_an_empty_bar_and_a_completed_step_says_how_long_it_took() -> None:
    console, scenario = a_console(terminal=True), JobScenario()
    scenario.requested()
    scenario.failed("prepare", 1)
    with screen(console, json=False) as shown:
        show(shown, progress(done=1, of=2))
        show(shown, stream_event(scenario))
    assert "1/2 rows" not in written(console)
    assert "attempt 2, queued" in written(console)


def test_every_status_has_a_sign() -> None:
    assert set(SIGNS) == set(get_args(StepStatus))


def test_nothing_that_others_wrote_steers_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\tc") == "a\\x1b[31mb\\x07\tc"


def test_progress_tells_every_step_of_the_plan() -> None:
    scenario = JobScenario()
    scenario.requested()
    view = job_progress(JobRow(scenario.job_id, scenario.state, 1, scenario.now), [])
    assert [(step.step, step.status, step.attempt) for step in view.steps][:2] == [
        ("prepare", "queued", 1), ("evaluate-base", "waiting", 0),
    ]  # fmt: skip
