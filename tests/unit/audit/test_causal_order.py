"""A history tells every record once, causes before effects, and says what is odd about a record."""

from hypothesis import given
from hypothesis import strategies as st

from services.audit.causal_order import CIRCLE, OUTSIDE, REPEATED, EventGroup, Line, Order, OrderedRecord, causal_groups
from services.cli.audit.history_text import history_lines


def record(
    name: str | None, cause: str | None = None, *, at: int = 0, about: str | None = "job-1", offset: int = 0
) -> OrderedRecord:
    return OrderedRecord(Order(at, "t", 0, offset), name, cause, about, "Type", f"text of {name}")


def lines_of(found: list[EventGroup]) -> list[Line]:
    return [line for group in found for line in group.lines]


def ids(found: list[EventGroup]) -> list[str | None]:
    return [line.record.id for line in lines_of(found)]


def test_an_effect_that_lies_earlier_in_the_log_is_told_after_its_cause() -> None:
    found = causal_groups([record("effect", "cause", at=1), record("cause", at=2), record("later", "cause", at=3)])
    assert ids(found) == ["cause", "effect", "later"]
    assert [line.because for line in lines_of(found)] == [None, 1, 1]


def test_what_causation_does_not_order_is_told_in_the_order_of_time_then_of_place() -> None:
    found = causal_groups([record("b", at=5, offset=2), record("c", at=7), record("a", at=5, offset=1)])
    assert ids(found) == ["a", "b", "c"]


def test_jobs_are_told_one_after_the_other_unless_one_caused_the_other() -> None:
    records = [
        record("a1", about="a", at=1),
        record("b1", about="b", at=2),
        record("a2", "a1", about="a", at=3),
        record("b2", "b1", about="b", at=4),
    ]
    assert ids(causal_groups(records)) == ["a1", "a2", "b1", "b2"]
    joined = causal_groups([*records, record("b3", "a2", about="b", at=5)])
    assert [group.about for group in joined] == [("a", "b")]


def test_a_cause_that_is_not_among_the_records_is_said() -> None:
    (line,) = lines_of(causal_groups([record("a", "somebody else")]))
    assert (line.because, line.remark) == (None, OUTSIDE)


def test_events_that_cause_each_other_in_a_circle_are_told_all_the_same() -> None:
    hanging = record("hanging", "a", at=0)
    found = lines_of(causal_groups([record("a", "c", at=3), record("b", "a", at=1), record("c", "b", at=2), hanging]))
    assert [line.record.id for line in found] == ["b", "c", "a", "hanging"]
    assert [line.remark for line in found] == [CIRCLE, "", "", ""]
    (itself,) = lines_of(causal_groups([record("x", "x")]))
    assert itself.remark == CIRCLE


def test_a_producers_duplicate_is_told_as_such() -> None:
    found = lines_of(causal_groups([record("a", at=1), record("a", at=2, about=None)]))
    assert [line.remark for line in found] == ["", REPEATED]


def test_records_that_are_no_events_are_told() -> None:
    found = causal_groups([record(None, about=None), record(None, about=None, at=1)])
    assert [group.about for group in found] == [(), ()]
    assert [line.number for line in lines_of(found)] == [1, 2]


names = st.none() | st.sampled_from("abcdefgh")


@given(
    st.lists(st.builds(record, names, names, at=st.integers(0, 5), about=st.none() | st.sampled_from("xy")), max_size=12)
)
def test_any_records_are_all_told_once_and_no_effect_before_its_cause(records: list[OrderedRecord]) -> None:
    records = [
        OrderedRecord(Order(r.order.timestamp, "t", 0, n), r.id, r.cause, r.about, r.type, r.text)
        for n, r in enumerate(records)
    ]
    found = lines_of(causal_groups(records))
    assert sorted(line.record.order for line in found) == sorted(record.order for record in records)
    assert [line.number for line in found] == list(range(1, len(records) + 1))
    first: dict[str, int] = {}
    for record in sorted(records, key=lambda each: each.order):
        if record.id is not None:
            first.setdefault(record.id, record.order.offset)
    number = {line.record.order.offset: line.number for line in found}
    for line in found:
        cause = first.get(line.record.cause or "")
        assert line.because == (None if cause is None or number[cause] >= line.number else number[cause])
        if cause is not None and line.because is None:
            assert line.remark in (CIRCLE, REPEATED)


@given(st.lists(st.tuples(st.none() | st.integers(0, 14), st.integers(0, 5)), max_size=12))
def test_of_the_events_whose_causes_are_told_the_earliest_comes_next(events: list[tuple[int | None, int]]) -> None:
    records = [record(str(n), str(cause), at=at, offset=n) for n, (cause, at) in enumerate(events)]
    known = {record.id for record in records}
    lines = lines_of(causal_groups(records))
    for position, line in enumerate(lines):
        said = {earlier.record.id for earlier in lines[:position]}
        ready = [later.record.order for later in lines[position:] if later.record.cause not in known - said]
        assert line.record.order == min(ready, default=line.record.order)


def test_a_history_is_written_with_what_caused_what_and_where_it_lies() -> None:
    text = list(history_lines(causal_groups([record("a"), record("b", "a", at=1500, offset=7)])))
    assert text[0] == "— job-1 —"
    assert text[2] == "2 ←1 1970-01-01 00:00:01.500 Type                text of b [t:0:7]"


def test_a_time_that_no_calendar_has_is_told_as_a_number() -> None:
    (_, line, _) = history_lines(causal_groups([record("a", at=2**62)]))
    assert f"{2**62} ms" in line
