"""A resumed run sees the order and rates of one that was never interrupted, because they depend on the step alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.recipes.optimiser import OptimiserSettings
from services.trainer.engine.schedule import (
    batch_of,
    by_length,
    learning_rate,
    micro_batch_size,
    steps_of,
    times_used,
    tokens_read,
    used_examples,
)


def test_steps_follow_from_epochs_where_they_are_not_given() -> None:
    assert steps_of(OptimiserSettings(epochs=2, batch_size=8), 20) == 5
    assert steps_of(OptimiserSettings(steps=7, epochs=2), 20) == 7
    assert steps_of(OptimiserSettings(epochs=0.01, batch_size=8), 20) == 1


def test_the_rate_warms_up_to_its_peak_and_goes_down_to_almost_nothing() -> None:
    settings = OptimiserSettings(learning_rate=1.0, schedule="cosine", warmup_ratio=0.1)
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_linear_and_constant_do_what_they_say() -> None:
    linear = OptimiserSettings(learning_rate=1.0, schedule="linear", warmup_ratio=0)
    constant = OptimiserSettings(learning_rate=1.0, schedule="constant", warmup_ratio=0)
    assert [learning_rate(linear, step, 4) for step in range(4)] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert [learning_rate(constant, step, 4) for step in range(4)] == [1.0] * 4


def test_every_example_comes_once_a_pass_and_each_pass_has_its_own_order() -> None:
    places = [example for step in range(10) for example in batch_of(step, 4, 20, seed=3)]
    assert Counter(places) == dict.fromkeys(range(20), 2)
    assert places[:20] != places[20:]


def test_a_batch_is_full_where_a_pass_ends_and_where_the_data_are_fewer_than_it() -> None:
    assert len(batch_of(2, 8, 20, seed=0)) == 8
    assert Counter(batch_of(0, 9, 3, seed=0)) == {0: 3, 1: 3, 2: 3}


def test_the_seed_decides_the_order() -> None:
    assert batch_of(5, 8, 100, seed=1) == batch_of(5, 8, 100, seed=1) != batch_of(5, 8, 100, seed=2)


def test_the_micro_batch_is_halved_for_every_lack_of_memory_and_never_vanishes() -> None:
    settings = OptimiserSettings(batch_size=12)
    assert [micro_batch_size(settings, failures) for failures in range(5)] == [12, 6, 3, 1, 1]
    assert micro_batch_size(OptimiserSettings(batch_size=12, micro_batch_size=4), 1) == 2


def test_parts_of_a_batch_are_equal_in_size() -> None:
    settings = OptimiserSettings(batch_size=10)
    assert [micro_batch_size(settings, failures) for failures in range(5)] == [10, 5, 2, 1, 1]
    assert micro_batch_size(OptimiserSettings(batch_size=7), 1) == 1


def test_examples_of_like_length_share_a_part() -> None:
    assert by_length([0, 1, 2, 3, 4], [5, 50, 6, 49, 51]) == [4, 1, 3, 2, 0]


def test_an_example_that_no_step_uses_is_left_out() -> None:
    settings = OptimiserSettings(steps=1, batch_size=2)
    assert sorted(used_examples(settings, [1, 2, 3, 4, 5], seed=0)) == sorted(batch_of(0, 2, 5, seed=0))


def test_the_tokens_that_are_read_are_those_of_the_examples_in_all_batches() -> None:
    lengths = [3, 5, 8, 13, 21, 34, 55]
    settings = OptimiserSettings(steps=5, batch_size=4)
    read = [lengths[example] for step in range(5) for example in batch_of(step, 4, len(lengths), seed=2)]
    assert tokens_read(settings, lengths, seed=2) == sum(read)
    pairs = [lengths[example] for step in range(5) for example in batch_of(step, 2, len(lengths), seed=2)]
    assert tokens_read(settings, lengths, seed=2, group=2) == 2 * sum(pairs)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 30), st.integers(1, 3))
def test_the_times_that_examples_are_used_are_those_of_the_batches(
    examples: int, batch: int, steps: int, group: int
) -> None:
    settings = OptimiserSettings(batch_size=batch * group, steps=steps)
    drawn = Counter(example for step in range(steps) for example in batch_of(step, batch, examples, 3))
    assert times_used(settings, examples, 3, group) == [drawn[example] for example in range(examples)]
