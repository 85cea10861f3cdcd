"""Assigns each prompt to a split by its hash, so that it stays there whatever other rows are added or removed. Pure."""

import hashlib
import json

from schemas.lines import Row, Split
from schemas.recipes.dataset import SplitSettings


def prompt_key(row: Row) -> str:
    """Return the key of a prompt: the turns before the answer and the tools; of a plain text the whole. Equal keys mean equal
    prompts.
    """
    if not row.messages:
        return json.dumps(["text", row.completion], ensure_ascii=False)
    turns = [
        [turn.role, turn.content, *([turn.tool_calls] if turn.tool_calls else [])] for turn in row.messages
    ]  # fmt: skip
    return json.dumps([*turns, *([{"tools": row.tools}] if row.tools else [])], ensure_ascii=False)


def split_of(row: Row, settings: SplitSettings) -> Split:
    """Return the split of a row of a single file, by the hash of its prompt; a split without a name or a share gets no
    rows."""
    digest = hashlib.sha256(prompt_key(row).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    test = settings.test_fraction if settings.test is not None else 0.0
    if position < test:
        return "test"
    return "validation" if position < test + settings.validation_fraction else "train"
