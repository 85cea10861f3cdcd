"""Under any schedule and any fault, live state is what the log says, and what was asked for happens once; and the rules matter."""

import pytest

from tests.simulation.run import Run, Unsound
from tests.simulation.variants import VARIANTS, Variant

SEEDS = 200
_BLOCK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, _BLOCK))
def test_every_run_is_sound(first: int) -> None:
    for seed in range(first, first + _BLOCK):
        Run(seed).go()


def test_a_run_is_its_seed() -> None:
    once, again = Run(11).go(), Run(11).go()
    assert once.trace == again.trace
    assert [r.value for rs in once.log.partitions.values() for r in rs] == [
        r.value for rs in again.log.partitions.values() for r in rs
    ]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_without_one_rule_some_run_is_unsound(variant: Variant) -> None:
    with pytest.raises(Unsound, match=r"run it again: python -m tests\.simulation\.soak --seed \d+"):
        run_all(SEEDS, variant)


def run_all(seeds: int, variant: Variant) -> None:
    for seed in range(seeds):
        Run(seed, variant).go()
