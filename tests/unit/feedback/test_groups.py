"""Which candidates of a prompt can be judged at all."""

from services.feedback.groups import group
from tests.feedback import reply, row


def test_only_the_judged_field_is_shown_to_the_judge() -> None:
    found = group(row(reply("Thank you."), reply("No.")), "reply", ())
    assert [judged.text for judged in found.judged()] == ["Thank you.", "No."]


def test_without_a_judged_field_the_whole_answer_is() -> None:
    found = group(row("Thank you.", "No."), None, ())
    assert [judged.text for judged in found.judged()] == ["Thank you.", "No."]


def test_an_answer_without_the_judged_field_is_unread_and_keeps_its_place_empty() -> None:
    found = group(row("Thank you.", reply("No."), '{"queue": "billing"}'), "reply", ())
    assert found.unread == 2
    assert [candidate.index for candidate in found.candidates] == [1]


def test_an_answer_that_lacks_a_field_to_be_kept_equal_is_unread() -> None:
    found = group(row('{"reply": "Thank you."}', reply("No.")), "reply", ("queue",))
    assert [candidate.text for candidate in found.candidates] == ["No."]


def test_candidates_with_the_same_judged_text_are_one_whatever_else_they_say() -> None:
    found = group(row(reply("No.", "billing"), reply("Thanks."), reply("No. ", "returns")), "reply", ())
    assert [candidate.index for candidate in found.candidates] == [0, 1]
    assert found.equal_to == {2: 0}
    assert found.unread == 0
