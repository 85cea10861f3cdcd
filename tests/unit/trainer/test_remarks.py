"""What looks like a fault of the program that wrote a row is learnt, and told."""

from collections.abc import Mapping, Sequence

import pytest

from schemas.lines import Message, Row
from schemas.recipes.dataset import DatasetSettings
from services.trainer.data.findings import RowFindings
from services.trainer.data.layouts import reading_of
from services.trainer.data.mapping import example_of
from services.trainer.data.raw import RawRow
from services.trainer.data.remarks import remarks
from services.trainer.data.sameness import Sameness


def said(prompt: str, answer: str) -> list[str]:
    values = {"prompt": prompt, "completion": answer}
    row = Row(id="row-1", messages=(Message(role="user", content=prompt),), completion=answer, columns={})
    return list(remarks(values, row, reading_of(DatasetSettings(reference="x"), [values], "answers")))


def of_chat(chat: Sequence[Mapping[str, object]], **columns: object) -> list[str]:
    settings, values = DatasetSettings(reference="x"), {"messages": chat, **columns}
    reading = reading_of(settings, [values], "answers")
    return list(remarks(values, example_of(RawRow("line 1", values), "row-1", settings, reading).row, reading))


@pytest.mark.parametrize(
    ("prompt", "answer", "words"),
    [
        ("a", "nan", "empty or a broken cell"),
        ("a", " None", "broken cell"),
        ("a", "#N/A", "broken cell"),
        ("a", "x" * 32767, "its end may be missing"),
        ("a", '[{"type": "text", "text": "b"}]', "written as text"),
        ("[{'role': 'user', 'content': 'a'}]", "b", "written as text"),
        ("caf\N{REPLACEMENT CHARACTER}", "b", "replacement character"),
        ("a", "caf\u00c3\u00a9", "Windows-1252"),
        ("it\u00e2\u20ac\u2122s", "b", "Windows-1252"),
        ("a\x00", "b", "control characters"),
        ("<image>\nWhat is it?", "b", "only text is learnt"),
        ("[INST] Why? [/INST]", "b", "marks of a chat template"),
        ("a", "b<|eot_id|><|start_header_id|>user", "marks of a chat template"),
        ("Is the shop open?", "Is the shop open? Until six.", "begins with its whole prompt"),  # OpenRLHF/OpenRLHF#909
    ],
)
def test_a_peculiar_text_is_told(prompt: str, answer: str, words: str) -> None:
    (found,) = said(prompt, answer)
    assert words in found


@pytest.mark.parametrize(
    "text",
    [
        "Nancy",
        "no, none of them",
        '[{"a": 1}]',
        "\u00c3 bientot",
        "caf\u00e9 \u20ac 5",
        "tab\tand\r\nline",
        "<b>image</b>",
        "a | b <c>",
    ],
)
def test_usual_texts_are_not_remarked_on(text: str) -> None:
    assert said(text, "b") == said("a", text) == []


@pytest.mark.parametrize("asks", [{"train": True}, {"training": 1}, {"loss": True}, {"weight": 1}, {"masked": False}])
@pytest.mark.parametrize("role", ["user", "tool", "system"])
def test_a_turn_that_asks_to_be_learnt_and_is_context_is_told(asks: dict[str, object], role: str) -> None:
    """Axolotl learns a turn with `training: true` whatever its role, ChatGLM3 one with `loss`, torchtune one that is not `masked`."""
    chat: list[dict[str, object]] = [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **asks},
        {"role": role, "content": "c", **asks}, {"role": "assistant", "content": "d", **asks},
    ]  # fmt: skip
    if role == "system":
        chat = [chat[2], *chat[:2]]
    (found,) = of_chat(chat)
    assert found.startswith(f"role '{role}': its turns ask to be learnt")


def test_turns_that_ask_for_nothing_or_not_to_be_learnt_are_not_remarked_on() -> None:
    user, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": True}
    assert of_chat([{**user, "train": False}, answer]) == of_chat([{**user, "weight": None}, answer]) == []
    assert of_chat([user, answer]) == []


def test_a_column_with_a_mask_of_its_own_is_told() -> None:
    """hiyouga/LlamaFactory#9630: a list of numbers beside the chat, one for each turn."""
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (found,) = of_chat(chat, loss_mask=[0, 0])
    assert "loss_mask: a column with this name is filled and not read" in found


def test_rows_with_one_remark_are_told_together_and_of_very_many_remarks_only_some_are_kept() -> None:
    found = RowFindings(DatasetSettings(reference="x"), 64)
    for number in range(200):
        found.remark("every row is odd", f"line {number}")
        found.remark(f"role {number}", f"line {number}")
    notes = found.notes(Sameness(0, 0, 0))
    assert notes[0] == "every row is odd (line 0, line 1, line 2 and 197 more)"
    assert len(notes) == 50
