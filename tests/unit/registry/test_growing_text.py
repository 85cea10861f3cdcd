"""An answer that is told in parts is the answer that is told at once, whatever its bytes, its surroundings and its stop sequences."""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from services.registry.model_server.growing_text import GrowingText, TextForm

LEAD, END = "<think>\n\n</think>", "#end"


def said(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


def bare(text: str) -> str:
    return text.strip().removeprefix(LEAD).removesuffix(END).strip()


CHAT = TextForm(said, bare, (LEAD, END))
PLAIN = TextForm(said, lambda text: text, ("", ""))
TEXTS = st.one_of(st.text(alphabet="ab \n#end<think>/é😀", max_size=30).map(str.encode), st.binary(max_size=30))


def told(form: TextForm, ids: bytes, stops: Sequence[str] = ()) -> str:
    growing, parts = GrowingText(form, stops), ""
    for token in ids:
        parts += growing.add(token)
        if growing.stopped:
            break
    parts += growing.end()
    assert growing.told == parts
    return parts


@given(TEXTS)
@example(b"  <think>\n\n</think> hello #end")
@example("é".encode()[:1])
@example(b"a#en")
def test_the_parts_are_the_whole_answer(ids: bytes) -> None:
    assert told(CHAT, ids) == CHAT.whole(ids)
    assert told(PLAIN, ids) == PLAIN.whole(ids)


@given(TEXTS, st.sampled_from(("b", "nd", "\n\n", "a b")))
@example(b"one two\n\nthree", "\n\n")
def test_nothing_of_a_stop_sequence_or_behind_it_is_told(ids: bytes, stop: str) -> None:
    assert told(PLAIN, ids, [stop]) == said(ids).partition(stop)[0]


def test_a_stop_sequence_that_begins_and_does_not_end_is_told() -> None:
    growing = GrowingText(PLAIN, ["###"])
    assert [growing.add(token) for token in b"a##b"] == ["a", "", "", "##b"]


def test_a_character_is_told_when_its_last_byte_is_there() -> None:
    growing = GrowingText(PLAIN, ())
    assert [growing.add(token) for token in "aé".encode()] == ["a", "", "é"]
