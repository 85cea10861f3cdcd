"""What goes is old, or the oldest of too much; what is referenced never goes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.storage.retention.decision import RemovalCandidate, expired
from services.chassis.storage.retention.policy import RetentionRule

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def found(name: str, days: float, size: int = 1, *, referenced: bool = False) -> RemovalCandidate:
    return RemovalCandidate(Path(name), NOW - days * DAY, size, referenced)


def names(gone: list[RemovalCandidate]) -> list[str]:
    return [one.path.name for one in gone]


def test_what_is_older_than_the_rule_goes_the_oldest_first() -> None:
    assert names(expired(RetentionRule(7 * DAY), NOW, [found("a", 8), found("b", 6), found("c", 9)])) == ["c", "a"]


def test_the_oldest_go_until_the_rest_has_room() -> None:
    things = [found("a", 3, 50), found("b", 2, 50), found("c", 1, 50)]
    assert names(expired(RetentionRule(7 * DAY, size=100), NOW, things)) == ["a"]
    assert names(expired(RetentionRule(7 * DAY, count=1), NOW, things)) == ["a", "b"]


def test_nothing_young_goes_for_want_of_room() -> None:
    rule = RetentionRule(7 * DAY, size=0, least=2 * DAY)
    assert names(expired(rule, NOW, [found("a", 3, 50), found("b", 1, 50)])) == ["a"]


def test_what_is_referenced_stays_and_its_room_counts() -> None:
    things = [found("a", 30, 80, referenced=True), found("b", 2, 20), found("c", 1, 20)]
    assert names(expired(RetentionRule(7 * DAY, size=100), NOW, things)) == ["b"]


rules = st.builds(
    RetentionRule,
    age=st.timedeltas(timedelta(), 40 * DAY),
    size=st.none() | st.integers(0, 500),
    count=st.none() | st.integers(0, 10),
    least=st.timedeltas(timedelta(), 5 * DAY),
)
things = st.lists(
    st.builds(found, st.text("abc", min_size=1), st.floats(0, 60), st.integers(0, 100), referenced=st.booleans()),
    max_size=12,
)


@given(rules, things)
def test_whatever_the_rule_what_goes_was_allowed_to_and_what_stays_had_to(
    rule: RetentionRule, everything: list[RemovalCandidate]
) -> None:
    gone = expired(rule, NOW, everything)
    assert not any(one.referenced for one in gone)
    assert all(NOW - one.at > min(rule.age, rule.least) for one in gone)
    kept = list(everything)
    for one in gone:
        kept.remove(one)
    loose = [one for one in kept if not one.referenced]
    assert all(NOW - one.at <= rule.age for one in loose)
    removable = [one for one in loose if NOW - one.at > rule.least]
    if removable:
        assert rule.size is None or sum(one.size for one in kept) <= rule.size
        assert rule.count is None or len(kept) <= rule.count
    assert expired(rule, NOW, kept) == []
