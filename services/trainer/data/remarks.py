"""Tells what of a row is learnt although it looks like a fault of the program that wrote it, or is not read. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence

from schemas.lines import Row
from schemas.reasons import shown
from services.trainer.data.layouts import RowReading
from services.trainer.data.turns import USUAL_ROLES, asks_in_vain

_PROMPT_AT_LEAST = 12
"""A shorter prompt may begin an answer by chance."""
_EMPTY_CELLS = frozenset({"nan", "null", "none", "<na>", "#n/a", "#ref!", "#value!", "#name?"})
_CELL = 32_767
"""The characters that a cell of Excel holds at most."""
_SIGNS: Sequence[tuple[re.Pattern[str], str]] = (
    (
        re.compile(r"""\A\s*\[\s*\{\s*["'](type|role|from)["']\s*:"""),
        "a text is a list of turns or of parts, written as text",
    ),
    (re.compile("\N{REPLACEMENT CHARACTER}"), "a text contains the replacement character, which a wrong encoding leaves"),
    (re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac"), "a text looks like UTF-8 that was read as Windows-1252"),
    (re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]"), "a text contains control characters"),
    (re.compile(r"<(image|video|audio)>"), "a text names an image, a video or sound, and only text is learnt"),
    (
        re.compile(
            r"<\|(im_start|im_end|eot_id|start_header_id|endoftext|user|assistant|system|end)\|>|\[/INST\]|<start_of_turn>"
        ),
        "a text contains marks of a chat template, such as <|im_start|> or [/INST]",
    ),
)


def remarks(values: Mapping[str, object], row: Row, reading: RowReading) -> Iterator[str]:
    """Yield a sentence for each peculiarity of a row."""
    for name in reading.unread(values):
        yield f"{name}: a column with this name is filled and not read; name it in dataset.columns if it matters"
    for role in {turn.role for turn in row.messages} - USUAL_ROLES:
        yield f"role {shown(role)}: its turns are context, since only an assistant's are learnt"
    for role in {turn.role for turn in row.messages if asks_in_vain(turn)}:
        yield f"role {shown(role)}: its turns ask to be learnt (weight 1, train: true) and are context, since only an assistant's are learnt"
    if row.completion.strip().lower() in _EMPTY_CELLS:
        yield "an answer is what programs write for an empty or a broken cell, such as nan, None or #REF!"
    asked = row.messages[-1].content if row.messages else ""
    if len(asked) >= _PROMPT_AT_LEAST and row.completion.startswith(asked):
        yield "an answer begins with its whole prompt, which is learnt, too"
    texts = [*(turn.content for turn in row.messages), row.completion]
    if any(len(text) == _CELL for text in texts):
        yield f"a text has {_CELL} characters, the most that a cell of Excel holds, so that its end may be missing"
    for sign, what in _SIGNS:
        if any(map(sign.search, texts)):
            yield what
