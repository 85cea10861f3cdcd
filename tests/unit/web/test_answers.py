"""An answer is made once for what rows say, again for what they say otherwise, and kept within bounds."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from services.chassis.web.answers import Answers, page_answer


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
    answers, counted = Answers(), Counted()
    make = counted.make
    for said in ("a", "a", "b", "a"):
        answer = await answers.of(make, said, 1)
        assert json.loads(bytes(answer.body)) == {"said": said}
        assert answer.headers["content-type"] == "application/json"
    assert counted.made == ["a", "b"]


async def test_another_view_of_the_same_rows_is_another_answer() -> None:
    answers, one, other = Answers(), Counted(), Counted()
    await answers.of(one.make, "a", 1)
    await answers.of(other.make, "a", 1)
    assert (one.made, other.made) == (["a"], ["a"])


async def test_what_was_not_asked_for_longest_goes_first() -> None:
    answers, counted = Answers(limit=100), Counted()
    make = counted.make
    for said in ("a", "b", "a", "c", "a", "b"):
        await answers.of(make, said, 30)
    assert counted.made == ["a", "b", "c", "b"]


async def test_what_is_larger_than_all_that_is_kept_is_answered_and_not_kept() -> None:
    answers, counted = Answers(limit=100), Counted()
    make = counted.make
    for said in ("small", "large", "small"):
        await answers.of(make, said, 90 if said == "large" else 10)
    assert counted.made == ["small", "large"]


@given(st.lists(st.dictionaries(st.text(), st.text())), st.none() | st.text("AZaz09-_", min_size=1))
@settings(max_examples=50)
def test_a_page_is_its_items_and_its_cursor(items: list[dict[str, str]], cursor: str | None) -> None:
    answer = page_answer([json.dumps(item) for item in items], cursor)
    assert json.loads(bytes(answer.body)) == {"items": items, "next": cursor}
