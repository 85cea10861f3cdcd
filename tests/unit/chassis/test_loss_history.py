"""The course of a run's loss is kept in bounded space, from its first step to its last."""

import math

import pytest

from services.chassis.executor.loss_history import LENGTH, LossHistory


def history(*losses: float) -> tuple[float, ...]:
    kept = LossHistory()
    for loss in losses:
        kept.add(loss)
    return kept.means


def test_few_losses_are_kept_as_they_are() -> None:
    assert history(3.0, 2.0, 1.0) == (3.0, 2.0, 1.0)


@pytest.mark.parametrize("count", [LENGTH, LENGTH + 1, 2 * LENGTH + 3, 1000, 12_345])
def test_many_losses_are_kept_as_means_from_the_first_to_the_last(count: int) -> None:
    means = history(*(float(number) for number in range(count)))
    assert LENGTH / 2 <= len(means) <= LENGTH + 1
    assert list(means) == sorted(means)
    assert means[0] < count / LENGTH * 2
    assert means[-1] > count - 1 - count / LENGTH * 4


def test_losses_that_are_not_finite_are_left_out() -> None:
    assert history(1.0, math.nan, math.inf, 2.0) == (1.0, 2.0)


def test_means_have_four_digits() -> None:
    assert history(1.234567) == (1.235,)
