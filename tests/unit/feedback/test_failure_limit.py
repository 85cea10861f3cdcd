"""When failures are systematic."""

from collections.abc import Iterable

from services.feedback.judges.failure_limit import FailureLimit


def after(outcomes: Iterable[bool]) -> bool:
    patience = FailureLimit()
    for outcome in outcomes:
        patience.note(outcome)
    return patience.exhausted


def test_a_dozen_failures_in_a_row_end_it() -> None:
    assert not after([False] * 11)
    assert after([False] * 12)
    assert after([True] * 1000 + [False] * 12)


def test_a_success_in_between_starts_the_row_anew() -> None:
    assert not after([*[False] * 11, *[True] * 30, *[False] * 11])


def test_half_of_many_failing_ends_it() -> None:
    assert not after([True, False] * 14)
    assert after([True, False] * 15)


def test_a_few_failures_among_many_are_borne() -> None:
    assert not after([True, True, True, False] * 100)
