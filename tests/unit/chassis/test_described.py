"""Any error can be worded, also one that says nothing."""

import asyncio

import pytest

from services.chassis.process.transient import described


@pytest.mark.parametrize("error", [TimeoutError(), asyncio.CancelledError(), RuntimeError(""), ValueError("\n\n")])
def test_an_error_without_text_is_named_by_its_type(error: BaseException) -> None:
    assert described(error) == type(error).__name__


def test_only_the_first_line_that_says_something_is_taken() -> None:
    assert described(ValueError("\n  the first\nthe second")) == "ValueError: the first"


def test_a_long_text_is_cut() -> None:
    assert len(described(ValueError("x" * 10_000), limit=100)) == 100
