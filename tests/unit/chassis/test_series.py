"""The course of a run is kept in bounded space, from its first step to its last."""

import math
from pathlib import Path

import pytest

from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.series import LENGTH, Series, TimedSeries
from tests.trainer import Reports, context_of


def history(*values: float) -> tuple[float, ...]:
    kept = Series()
    for value in values:
        kept.add(value)
    return kept.means


def test_few_numbers_are_kept_as_they_are() -> None:
    assert history(3.0, 2.0, 1.0) == (3.0, 2.0, 1.0)


@pytest.mark.parametrize("count", [LENGTH, LENGTH + 1, 2 * LENGTH + 3, 1000, 12_345])
def test_many_numbers_are_kept_as_means_from_the_first_to_the_last(count: int) -> None:
    means = history(*(float(number) for number in range(count)))
    assert LENGTH / 2 <= len(means) <= LENGTH + 1
    assert list(means) == sorted(means)
    assert means[0] < count / LENGTH * 2
    assert means[-1] > count - 1 - count / LENGTH * 4


def test_numbers_that_are_not_finite_are_left_out() -> None:
    assert history(1.0, math.nan, math.inf, 2.0) == (1.0, 2.0)


def test_means_have_four_digits() -> None:
    assert history(1.234567) == (1.235,)


def test_numbers_are_kept_with_the_time_at_which_they_were_measured() -> None:
    series = TimedSeries(length=4)
    for second in range(6):
        series.add(float(second), 10.0 * second)
        series.add(second + 0.5, math.nan)
    assert series.points == ((0.5, 5.0), (2.5, 25.0), (4.5, 45.0))


def test_the_course_of_a_resumed_run_begins_with_its_first_step(tmp_path: Path) -> None:
    context = context_of(tmp_path, TrainSettings(base_model="x", training=TrainingSettings()))
    context.resumed([3.0, 2.0])
    context.progress(3, 9, loss=1.0)
    assert isinstance(context._channel, Reports)
    assert context._channel.progress[-1].losses == (3.0, 2.0, 1.0)
    context.resumed([3.0])
    assert context._losses.means == (3.0,)
