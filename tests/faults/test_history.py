"""The checker finds a planted fault of each kind, and nothing where nothing is wrong."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.faults.history import Fact, FactKind, Verdict, check, read, write


def history(events: int = 6, keys: int = 2) -> list[Fact]:
    """All is well: each event sent, acknowledged, applied and effected, in order."""
    facts = []
    for index in range(events):
        key, number = f"k{index % keys}", index // keys
        facts += [Fact(kind, f"e{index}", key, number) for kind in ("sent", "acknowledged", "applied", "effect")]
    return facts


def without(facts: list[Fact], one: str, *kinds: FactKind) -> list[Fact]:
    return [fact for fact in facts if not (fact.id == one and fact.kind in kinds)]


def test_a_history_in_which_all_is_well_is_well() -> None:
    assert check(history()) == Verdict(events=6)
    assert check(history()).well


def test_an_empty_history_proves_nothing() -> None:
    assert not check([]).well


def test_an_event_that_was_passed_over_is_lost() -> None:
    assert check(without(history(), "e2", "applied", "effect")).lost == ["e2"]


def test_an_event_that_was_applied_without_its_effect_is_lost() -> None:
    assert check(without(history(), "e2", "effect")).lost == ["e2"]


def test_an_event_that_was_applied_twice_is_doubled() -> None:
    assert check([*history(), Fact("applied", "e5", "k1", 2)]).doubled == ["e5"]


def test_an_effect_that_happened_twice_is_doubled() -> None:
    assert check([*history(), Fact("effect", "e1", "k1", 0)]).doubled == ["e1"]


def test_an_event_that_was_applied_after_a_later_one_of_its_key_is_out_of_order() -> None:
    facts = without(history(), "e0", "applied")
    assert check([*facts, Fact("applied", "e0", "k0", 0)]).out_of_order == ["e0"]


def test_an_event_that_nothing_became_of_is_unseen() -> None:
    assert check(without(history(), "e5", "applied", "effect")).unseen == ["e5"]


def test_an_event_that_was_not_acknowledged_may_be_missing_or_not() -> None:
    assert check(without(history(), "e5", "acknowledged", "applied", "effect")).well
    assert check(without(history(), "e5", "acknowledged")).well


def test_an_event_that_the_log_lost_before_anybody_read_it_is_neither_lost_nor_unseen() -> None:
    first, last = Fact("removed", "e0", "k0", 0), Fact("removed", "e5", "k1", 2)
    facts = without(without(history(), "e0", "applied", "effect"), "e5", "applied", "effect")
    assert check([*facts, first, last]).well
    assert (check([*facts, first]).unseen, check([*facts, last]).lost) == (["e5"], ["e0"])


def test_a_projection_that_differs_from_a_replay_is_not_well() -> None:
    found = check(history())
    found.differences = 2
    assert not found.well
    assert str(found) == "6 events: 2 differences from a replay"


def test_a_history_says_what_is_wrong_with_it() -> None:
    assert str(check(without(history(), "e5", "applied", "effect"))) == "6 events: 1 unseen: e5"


def test_a_history_can_be_kept_and_read_again(tmp_path: Path) -> None:
    write(history(), tmp_path / "history.jsonl")
    assert list(read(tmp_path / "history.jsonl")) == history()


@given(st.integers(1, 40), st.integers(1, 5), st.data())
def test_whatever_one_fact_is_missing_or_said_twice_is_found(events: int, keys: int, data: st.DataObject) -> None:
    facts = history(events, keys)
    index = data.draw(st.integers(0, len(facts) - 1))
    fact = facts[index]
    doubled = check([*facts, fact])
    missing = check(facts[:index] + facts[index + 1 :])
    if fact.kind in ("applied", "effect"):
        assert doubled.doubled == [fact.id]
        assert not missing.well
    else:
        assert doubled.well
