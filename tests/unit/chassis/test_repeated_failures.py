"""A fault that lasts does not fill the log with one sentence, and none is kept from it."""

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.chassis.process import repeated_failures
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import REPEAT_SECONDS, FailureLog, Repeats


def test_a_sentence_is_said_at_once_and_then_once_a_minute_with_how_often_it_came() -> None:
    repeats = Repeats()
    said = [repeats.times("database away", float(now)) for now in range(0, 130, 5)]
    assert [times for times in said if times is not None] == [1, 12, 12]
    assert said[0] == 1


def test_another_sentence_is_said_at_once_and_one_that_comes_in_turns_with_it_is_not_said_each_time() -> None:
    repeats = Repeats()
    said = [repeats.times(sentence, float(now)) for now, sentence in enumerate(["a", "b", "a", "b", "a"])]
    assert said == [1, 1, None, None, None]


def test_what_comes_again_after_something_worked_is_news() -> None:
    repeats = Repeats()
    assert repeats.times("a", 0.0) == 1
    repeats.forget()
    assert repeats.times("a", 1.0) == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), max_size=60))
def test_everything_that_came_is_counted_once(came: list[tuple[str, int]]) -> None:
    repeats, now, counted = Repeats(), 0.0, 0
    for sentence, later in came:
        now += later
        counted += repeats.times(sentence, now) or 0
    counted += sum(repeats.times(sentence, now + REPEAT_SECONDS) or 0 for sentence in "ab")
    assert counted == len(came) + 2


def test_the_log_has_the_fault_with_its_level_and_the_repetitions_in_a_number() -> None:
    log = FailureLog(get_logger(repeated_failures.__name__))
    with capture_logs() as said:
        for _ in range(3):
            log.failed("cannot start yet", ConnectionRefusedError("no broker"), service="toy")
        log.failed("cannot start yet", ValueError("a fault of ours"), service="toy")
        log.failed("cannot start yet", ValueError("another"), known=True, service="toy")
    assert [(one["log_level"], one["error"]) for one in said] == [
        ("warning", "ConnectionRefusedError: no broker"),
        ("error", "ValueError: a fault of ours"),
        ("warning", "ValueError: another"),
    ]
