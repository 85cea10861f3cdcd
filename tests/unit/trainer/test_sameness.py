"""What a data set says more than once is counted, by what the rows mean: answers, preferences or labels."""

import random

import pytest

from schemas.lines import Message, Row
from services.trainer.data.prepared import said
from services.trainer.data.raw import StoredExample
from services.trainer.data.sameness import Sameness, SeenRows


def example(
    prompt: str, completion: str, rejected: str | None = None, label: bool | None = None, **columns: str
) -> StoredExample:
    row = Row(id="1", messages=(Message(role="user", content=prompt),), completion=completion, columns=columns)
    return StoredExample(row, rejected, label)


def found(*examples: StoredExample, test: tuple[StoredExample, ...] = (), leave_out: bool = False) -> Sameness:
    seen = SeenRows(leave_out=leave_out)
    for one in examples:
        seen.note("train", one.row, *said(one))
    for one in test:
        seen.note("test", one.row, *said(one))
    return seen.found()


def test_nothing_is_found_in_nothing() -> None:
    assert found() == Sameness(0, 0, 0)


def test_a_repetition_has_all_columns_equal() -> None:
    assert found(example("a", "b", x="1"), example("a", "b", x="1"), example("a", "b", x="2")).repeated == 1


@pytest.mark.parametrize(
    ("first", "second", "contradict"),
    [
        (example("a", "b"), example("a", "c"), True),
        (example("a", "b"), example("d", "c"), False),
        (example("a", "b", rejected="c"), example("a", "c", rejected="b"), True),
        (example("a", "b", rejected="c"), example("a", "b", rejected="d"), False),
        (example("a", "b", label=True), example("a", "c", label=False), False),
        (example("a", "b", label=True), example("a", "b", label=False), True),
    ],
)
def test_rows_contradict_where_they_say_different_things_of_one_subject(
    first: StoredExample, second: StoredExample, contradict: bool
) -> None:
    assert found(first, example("else", "x"), second).contradicting == (2 if contradict else 0)


def test_held_out_prompts_that_are_learnt_are_counted() -> None:
    assert found(example("a", "b"), test=(example("a", "c"), example("d", "b"))).test_seen == 1


@pytest.mark.parametrize("leave_out", [True, False])
def test_the_counts_are_those_of_a_plain_search(leave_out: bool) -> None:
    draw = random.Random(0)
    rows = [example(str(draw.randrange(30)), str(draw.randrange(4))) for _ in range(200)]
    texts = [(one.row.messages[0].content, one.row.completion) for one in rows]
    kept = list(dict.fromkeys(texts)) if leave_out else texts
    contradicting = sum(any(other[0] == one[0] and other[1] != one[1] for other in texts) for one in kept)
    assert found(*rows, leave_out=leave_out) == Sameness(len(texts) - len(set(texts)), contradicting, 0)
