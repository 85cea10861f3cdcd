"""An answer is made once for what rows say, again for what they say otherwise, and kept within bounds."""

import json
import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from services.chassis.serving.web.response_cache import ResponseCache, page_answer, size_of
from services.orchestrator.queries import Stored


class Counted:
    """Makes answers and counts them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def make(self, said: str) -> "Counted.View":
        self.made.append(said)
        return self.View(said=said)

    class View(BaseModel):
        said: str


async def test_what_says_the_same_is_made_once_and_what_says_something_else_anew() -> None:
    answers, counted = ResponseCache(), Counted()
    make = counted.make
    for said in ("a", "a", "b", "a"):
        answer = await answers.of(make, said, 1)
        assert json.loads(bytes(answer.body)) == {"said": said}
        assert answer.headers["content-type"] == "application/json"
    assert counted.made == ["a", "b"]


async def test_another_view_of_the_same_rows_is_another_answer() -> None:
    answers, one, other = ResponseCache(), Counted(), Counted()
    await answers.of(one.make, "a", 1)
    await answers.of(other.make, "a", 1)
    assert (one.made, other.made) == (["a"], ["a"])


async def test_what_was_not_asked_for_longest_goes_first() -> None:
    answers, counted = ResponseCache(limit=2200), Counted()
    make = counted.make
    for said in ("a", "b", "a", "c", "a", "b"):
        await answers.of(make, said, 30)
    assert counted.made == ["a", "b", "c", "b"]


async def test_what_is_larger_than_all_that_is_kept_is_answered_and_not_kept() -> None:
    answers, counted = ResponseCache(limit=2000), Counted()
    make = counted.make
    for said in ("small", "large", "small"):
        await answers.of(make, said, 990 if said == "large" else 10)
    assert counted.made == ["small", "large"]


class View(BaseModel):
    """Says little."""

    length: int


def _length(said: Stored) -> View:
    return View(length=len(said.state))


@pytest.mark.parametrize(
    "text", ["a", "a" * 20_000, "\u00fc" * 20_000, "\u2028" + "a" * 20_000, "\U0001f600" + "a" * 20_000]
)
async def test_what_is_kept_takes_no_more_memory_than_it_may_whatever_letters_rows_have(text: str) -> None:
    limit = 2**20
    answers = ResponseCache(limit)
    await answers.of(_length, Stored("job", text, 1, datetime.now(UTC)), size_of(text))
    tracemalloc.start()
    try:
        for number in range(2000):
            state = f"{text}{number}"
            await answers.of(_length, Stored(f"job-{number}", state, number, datetime.now(UTC)), size_of(state))
        assert tracemalloc.get_traced_memory()[0] < 1.1 * limit
    finally:
        tracemalloc.stop()


@given(st.lists(st.dictionaries(st.text(), st.text())), st.none() | st.text("AZaz09-_", min_size=1))
def test_a_page_is_its_items_and_its_cursor(items: list[dict[str, str]], cursor: str | None) -> None:
    answer = page_answer([json.dumps(item) for item in items], cursor)
    assert json.loads(bytes(answer.body)) == {"items": items, "next": cursor}
