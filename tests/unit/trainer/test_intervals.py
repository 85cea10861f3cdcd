"""A confidence interval says how much a metric would differ with other rows of the same kind."""

import math

import numpy as np
import pytest

from services.trainer.steps.intervals import interval, interval_of, mean


def test_the_interval_of_a_share_is_that_of_the_normal_approximation() -> None:
    found = interval([1.0] * 60 + [0.0] * 140, seed=0)
    assert found is not None
    deviation = 1.96 * math.sqrt(0.3 * 0.7 / 200)
    assert (found.low, found.high) == pytest.approx((0.3 - deviation, 0.3 + deviation), abs=0.01)


def test_intervals_hold_the_true_mean_in_about_95_of_100_samples() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(60):
        found = interval(list(rng.normal(5.0, 2.0, size=80)), seed=seed)
        held += found is not None and found.low <= 5.0 <= found.high
    assert held >= 52


def test_many_different_values_have_the_interval_of_few_that_are_almost_the_same() -> None:
    few = [1.0, 0.0, 0.5] * 60
    many = [value + number * 1e-9 for number, value in enumerate(few)]
    one, other = interval(few, seed=0), interval(many, seed=0)
    assert one is not None
    assert other is not None
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.01)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [number**0.5 for number in range(50)]
    assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)


def test_a_weighted_mean_counts_a_row_as_often_as_its_weight_says() -> None:
    assert mean([1.0, 4.0], [2.0, 1.0]) == 2.0
    found = interval([1.0, 4.0], [2.0, 1.0], seed=0)
    assert found is not None
    assert (found.low, found.high) == (1.0, 4.0)


def test_one_row_has_a_mean_and_no_interval_and_no_row_has_neither() -> None:
    assert (mean([0.5]), interval([0.5], seed=0)) == (0.5, None)
    assert (mean([]), interval([], seed=0)) == (None, None)


def test_a_mean_that_is_not_finite_is_not_measurable() -> None:
    assert mean([1.0, math.nan]) is None
    assert interval([1.0, math.inf], seed=0) is None


def test_any_number_that_is_computed_from_rows_has_an_interval_of_resampled_rows() -> None:
    found = interval_of(max, [1.0, 2.0, 3.0, 4.0], seed=0)
    assert found is not None
    assert 1.0 <= found.low < found.high == 4.0
    assert interval_of(max, [1.0], seed=0) is None
    assert interval_of(lambda rows: math.nan, [1.0, 2.0], seed=0) is None
