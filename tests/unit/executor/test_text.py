"""What goes from a log into an event is readable and can be stored."""

from pathlib import Path

from services.chassis.executor.text import storable, tail


def test_terminal_escapes_and_control_characters_do_not_reach_an_event() -> None:
    assert storable("\x1b[31mred\x1b[0m\x00\ud800\ttab") == "red\ufffd\ufffd\ttab"


def test_a_tail_is_the_last_lines_oldest_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(80)))
    lines = tail(log)
    assert (len(lines), lines[0], lines[-1]) == (50, "line 30", "line 79")


def test_of_a_progress_bar_only_the_last_state_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"start\n  10%|#\r  50%|##\r 100%|###\nend\r\n\n")
    assert tail(log) == ("start", " 100%|###", "end")


def test_a_huge_line_and_bytes_that_are_no_text_are_cut_and_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 500_000 + b"\n\xff\xfe\n")
    lines = tail(log)
    assert [len(line) for line in lines] == [500, 2]
    assert lines[-1] == "\ufffd\ufffd"


def test_without_a_log_there_is_no_tail(tmp_path: Path) -> None:
    assert tail(tmp_path / "missing") == ()
