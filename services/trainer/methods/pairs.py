"""Reads preference pairs, and finds those that the chat template takes."""

from collections.abc import Sequence
from pathlib import Path

from schemas.lines import Preference
from schemas.reasons import Reason
from services.chassis.executor.child import UserFault
from services.chassis.storage.json_lines import read_lines
from services.language_models.chat_format.chat import Chat
from services.language_models.scoring import Scored
from services.trainer.methods.fitting import Example, usable


def pairs_of(folder: Path) -> Sequence[Preference]:
    """Return the pairs of a `preferences` artifact that are trained on. Raises UserFault if there is none."""
    read = read_lines(folder / Preference.FILE, Preference)
    if not read:
        message = "there is no preference pair for the training"
        remedy = "sample more prompts or candidates, lower feedback.margin, or read the report of the label step"
        raise UserFault(Reason(field="feedback", value="0 pairs", message=message, remedy=remedy))
    return read


def usable_pairs(chat: Chat, pairs: Sequence[Preference], section: str) -> list[tuple[int, Example]]:
    """Return the chosen and the rejected chat of the pairs that the template takes, with their numbers. Raises UserFault."""
    return usable([chat.try_encode(side, "last") for side in sides_of(pairs)], "pair", section)


def sides_of(pairs: Sequence[Preference]) -> tuple[list[Scored], list[Scored]]:
    """Return the chats with the chosen answers, and those with the rejected ones."""
    return (
        [(pair.messages, pair.chosen, pair.tools) for pair in pairs],
        [(pair.messages, pair.rejected, pair.tools) for pair in pairs],
    )
