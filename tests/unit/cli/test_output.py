"""Results are whole in a pipe and readable on a narrow terminal."""

import io

import pytest
from rich.console import Console

from services.cli import output
from services.cli.output import brief, print_table

COLUMNS = ("service", "record", "state", "type", "key", "tries", "error")
KEY, ERROR = "k" * 300, "ValueError: " + "long words " * 60
ROWS = [
    ("orchestrator", "jobs:3:41207", "failed", "JobRequested", KEY, 3, ERROR),
    ("trainer", "steps:0:1", "parked", None, "a\tb\nc", "", ""),
]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> io.StringIO:
    """Standard output as a terminal of so many columns, or as a pipe."""
    columns: int | None = request.param
    written = io.StringIO()
    console = Console(
        file=written, force_terminal=columns is not None, width=columns or 80, soft_wrap=columns is None, color_system=None
    )
    monkeypatch.setattr(output, "out", console)
    return written


@pytest.mark.parametrize("printed", [None], indirect=True)
def test_in_a_pipe_each_record_is_one_line_with_all_of_its_values(printed: io.StringIO) -> None:
    print_table(COLUMNS, ROWS)

    head, first, second = printed.getvalue().splitlines()
    assert head.split("\t") == list(COLUMNS)
    assert first.split("\t") == ["orchestrator", "jobs:3:41207", "failed", "JobRequested", KEY, "3", ERROR]
    assert second.split("\t") == ["trainer", "steps:0:1", "parked", "", "a\\tb\\nc", "", ""]


@pytest.mark.parametrize("printed", [60], indirect=True)
def test_a_terminal_that_is_too_narrow_for_the_columns_has_a_line_for_each_cell(printed: io.StringIO) -> None:
    print_table(COLUMNS, ROWS)

    lines = printed.getvalue().splitlines()
    assert lines[:4] == ["service  orchestrator", "record   jobs:3:41207", "state    failed", "type     JobRequested"]
    assert f"key      {KEY}" in printed.getvalue()
    assert "" in lines, "an empty line stands between two records"


@pytest.mark.parametrize("printed", [60], indirect=True)
def test_a_terminal_that_is_wide_enough_folds_the_widest_column_alone(printed: io.StringIO) -> None:
    print_table(("service", "condition"), [("orchestrator", "broker: " + "away " * 30)])

    lines = printed.getvalue().splitlines()
    assert lines[1].startswith("orchestrator  broker: away")
    assert all(len(line.rstrip()) <= 60 for line in lines)


@pytest.mark.parametrize(("printed", "whole"), [(None, True), (80, False)], indirect=["printed"])
def test_what_is_too_long_for_a_cell_is_shortened_on_a_terminal_alone(printed: io.StringIO, whole: bool) -> None:
    assert (brief(ERROR, 200) == ERROR) == whole
    assert brief("short", 200) == "short"


JOBS = ("job", "status", "pipeline", "steps", "model", "version", "requester", "requested")
LEAST = ("requester", "pipeline", "requested", "model", "version", "steps")
JOB = (
    "support-routing-2026-11-0001",
    "completed",
    "rlaif",
    "12/12",
    "support-router",
    "1.0.0",
    "relaycore/demo",
    "2026-11-26 18:09:01 UTC",
)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (200, JOBS),
        (80, ("job", "status", "steps", "model", "version")),
        (60, ("job", "status", "steps", "version")),
    ],
    indirect=["printed"],
)
def test_a_narrow_terminal_leaves_the_least_needed_columns_out_and_keeps_ids_whole(
    printed: io.StringIO, shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(JOBS, [JOB], least=LEAST)

    head, row = printed.getvalue().splitlines()
    assert tuple(head.split()) == shown
    assert row.startswith("support-routing-2026-11-0001  completed  ")
    left_out = [name for name in JOBS if name not in shown]
    assert ("Left out because the terminal is narrow" in capsys.readouterr().err) == bool(left_out)


@pytest.mark.parametrize("printed", [None], indirect=True)
def test_in_a_pipe_no_column_is_left_out(printed: io.StringIO) -> None:
    print_table(JOBS, [JOB], least=LEAST)
    assert printed.getvalue().splitlines()[1].split("\t") == list(JOB)
