"""Statistics that do not flatter a judge, against values worked out by hand."""

from collections import Counter

import pytest

from services.feedback.agreement import Ratings, kappa, share, transitivity
from services.feedback.comparisons import Comparison, Verdict

FIRST, SECOND, TIE = Verdict.FIRST, Verdict.SECOND, Verdict.TIE


def ratings(counts: dict[tuple[Verdict, Verdict], int]) -> Ratings:
    return Counter(counts)


def test_kappa_of_the_textbook_example() -> None:
    """Two raters agree on 20 yes and 15 no of 50; one says yes 25 times, the other 30 times: (0.7 - 0.5) / (1 - 0.5)."""
    found = kappa([ratings({(FIRST, FIRST): 20, (FIRST, SECOND): 5, (SECOND, FIRST): 10, (SECOND, SECOND): 15})])
    assert found is not None
    assert found.value == pytest.approx(0.4)
    assert found.comparisons == 50


def test_agreement_by_chance_alone_is_zero_although_half_of_the_verdicts_are_the_same() -> None:
    found = kappa([ratings({(FIRST, FIRST): 25, (FIRST, SECOND): 25, (SECOND, FIRST): 25, (SECOND, SECOND): 25})])
    assert found is not None
    assert found.value == pytest.approx(0.0)


def test_raters_who_never_differ_and_never_vary_have_no_kappa() -> None:
    assert kappa([ratings({(FIRST, FIRST): 10})]) is None
    assert kappa([]) is None


def test_the_interval_comes_from_prompts_not_from_comparisons() -> None:
    """Ten times the same comparisons within the same prompts make nobody surer."""
    once = [ratings({(FIRST, FIRST): 2, (SECOND, TIE): 1}), ratings({(SECOND, SECOND): 2, (FIRST, SECOND): 1})] * 5
    often = [Counter({verdicts: 10 * count for verdicts, count in one.items()}) for one in once]
    few, many = kappa(once), kappa(often)
    assert few is not None
    assert many is not None
    assert (few.low, few.high) == pytest.approx((many.low, many.high))


def test_the_interval_holds_the_value_and_narrows_with_more_prompts() -> None:
    some = [ratings({(FIRST, FIRST): 2, (SECOND, TIE): 1}), ratings({(SECOND, SECOND): 2, (FIRST, SECOND): 1})]
    few, many = kappa(some * 4), kappa(some * 40)
    assert few is not None
    assert few.low is not None
    assert few.high is not None
    assert many is not None
    assert many.low is not None
    assert few.low < few.value < few.high
    assert few.value == pytest.approx(many.value)
    assert many.value - many.low < 0.5 * (few.value - few.low)


def test_the_jackknife_of_two_prompts_by_hand() -> None:
    """Left out one by one: kappa 1 and 0; mean 0.5; standard error sqrt(1/2 * (0.25 + 0.25)) = 0.5."""
    agreeing = ratings({(FIRST, FIRST): 1, (SECOND, SECOND): 1})
    chance = ratings({(FIRST, FIRST): 1, (FIRST, SECOND): 1, (SECOND, FIRST): 1, (SECOND, SECOND): 1})
    found = kappa([agreeing, chance])
    assert found is not None
    assert found.low is not None
    assert found.value - found.low == pytest.approx(1.959964 * 0.5)
    assert found.high == 1.0


def test_one_prompt_has_no_interval() -> None:
    found = kappa([ratings({(FIRST, FIRST): 2, (SECOND, FIRST): 1, (SECOND, SECOND): 1})])
    assert found is not None
    assert (found.low, found.high) == (None, None)


def triple(a_b: float, b_c: float, a_c: float) -> list[Comparison]:
    return [Comparison(0, 1, a_b), Comparison(0, 2, a_c), Comparison(1, 2, b_c)]


def test_a_circle_is_not_transitive() -> None:
    order, circle, other_way_round = triple(1, 1, 1), triple(1, 1, -1), triple(-1, -1, 1)
    assert transitivity([(order, 0.2)]) == 1.0
    assert transitivity([(circle, 0.2)]) == 0.0
    assert transitivity([(other_way_round, 0.2)]) == 0.0
    assert transitivity([(order, 0.2), (circle, 0.2)]) == 0.5


def test_a_triple_with_a_tie_is_not_counted() -> None:
    assert transitivity([(triple(1, 1, 0.1), 0.2)]) is None


def test_a_share_of_nothing_is_none() -> None:
    assert share([]) is None
    assert share([True, True, False, True]) == 0.75
