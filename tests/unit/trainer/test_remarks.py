"""What looks like a fault of the program that wrote a row is learnt, and told."""

import pytest

from schemas.lines import Message, Row
from schemas.recipes.dataset import DatasetSettings
from services.trainer.data.findings import Findings
from services.trainer.data.layouts import reading_of
from services.trainer.data.remarks import remarks
from services.trainer.data.sameness import Sameness


def said(prompt: str, answer: str) -> list[str]:
    values = {"prompt": prompt, "completion": answer}
    row = Row(id="row-1", messages=(Message(role="user", content=prompt),), completion=answer, columns={})
    return list(remarks(values, row, reading_of(DatasetSettings(reference="x"), [values], "answers")))


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


def test_rows_with_one_remark_are_told_together_and_of_very_many_remarks_only_some_are_kept() -> None:
    found = Findings(DatasetSettings(reference="x"), 64)
    for number in range(200):
        found.remark("every row is odd", f"line {number}")
        found.remark(f"role {number}", f"line {number}")
    notes = found.notes(Sameness(0, 0, 0))
    assert notes[0] == "every row is odd (line 0, line 1, line 2 and 197 more)"
    assert len(notes) == 50
