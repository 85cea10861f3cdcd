"""A line of blocks shows the course of a series."""

import math

import pytest

from services.cli.sparkline import sparkline


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0, 2.0], "▁▁▁"),
        ([0.0, 7.0], "▁█"),
        ([4.0, 3.0, 2.0, 1.0], "█▆▃▁"),
        ([1.0, math.nan, 2.0, math.inf], "▁█"),
    ],
)
def test_the_least_value_is_the_lowest_block_and_the_greatest_the_highest(values: list[float], drawn: str) -> None:
    assert sparkline(values, 10) == drawn


def test_a_series_longer_than_the_line_is_averaged() -> None:
    assert sparkline([9.0, 9.0, 5.0, 5.0, 1.0, 1.0], 3) == "█▅▁"
    assert len(sparkline([float(number % 7) for number in range(1000)], 20)) == 20


def test_no_room_draws_nothing() -> None:
    assert sparkline([1.0, 2.0], 0) == ""
