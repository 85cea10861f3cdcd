"""The log of an attempt is read in parts, while its process writes it, and without what may not be shown."""

from pathlib import Path

import pytest

from services.chassis.executor.log_reading import LONGEST_READ, LogLines, read_lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "1.log"


def test_whole_lines_are_read_and_an_unfinished_one_waits(log: Path) -> None:
    log.write_bytes(b"one\ntwo\nthr")
    assert read_lines(log, None) == LogLines(("one", "two"), 8)
    log.write_bytes(b"one\ntwo\nthree\n")
    assert read_lines(log, 8) == LogLines(("three",), 14)
    assert read_lines(log, 14) == LogLines((), 14)


def test_the_last_lines_of_a_long_log_begin_with_a_whole_one(log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(20_000)))
    found = read_lines(log, None)
    assert found is not None
    assert found.lines[-1] == "line 19999"
    assert found.next == log.stat().st_size
    assert all(line.startswith("line ") for line in found.lines)


def test_a_long_log_is_read_in_parts_from_its_beginning(log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(20_000)))
    lines: list[str] = []
    after = 0
    while (found := read_lines(log, after)) and found.lines:
        lines, after = [*lines, *found.lines], found.next
    assert lines == [f"line {number}" for number in range(20_000)]


def test_a_line_longer_than_a_part_does_not_stop_the_reader(log: Path) -> None:
    log.write_bytes(b"x" * (LONGEST_READ + 10) + b"\nend\n")
    found = read_lines(log, 0)
    assert found is not None
    assert found.next == LONGEST_READ
    assert read_lines(log, found.next) == LogLines(("x" * 10, "end"), LONGEST_READ + 15)


def test_of_a_progress_bar_only_the_last_state_is_shown_and_no_control_character(log: Path) -> None:
    log.write_bytes(b"10%\r50%\r100%\r\n\x1b[31mred\x1b[0m \x00\xff\n")
    assert read_lines(log, 0) == LogLines(("100%", "red \ufffd\ufffd"), log.stat().st_size)


def test_an_empty_log_has_no_lines_and_a_missing_one_is_told_apart(log: Path) -> None:
    assert read_lines(log, None) is None
    log.write_bytes(b"")
    assert read_lines(log, None) == LogLines((), 0)


def test_a_log_that_was_replaced_by_a_shorter_one_is_read_on_at_its_end(log: Path) -> None:
    log.write_bytes(b"new\n")
    assert read_lines(log, 100) == LogLines((), 4)
