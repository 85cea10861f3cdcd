"""Chooses the examples that are left to learn from, and says which are not: what no template takes, and what does not fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.reasons import Reason, first_of
from services.chassis.executor.child import UserFault
from services.language_models.chat_format.chat import ChatFault, Tokens

_NAMED = 3
Example = tuple[Tokens, ...]
"""The sides of an example: one answer, or the better and the worse one of a pair."""


@dataclass(frozen=True)
class Unfit:
    """Examples that are left out for one reason."""

    counter: str
    """The metric with their number."""
    places: Sequence[int]
    why: str
    """What they have or lack, before the words `the N tokens of max_length`."""


@dataclass(frozen=True)
class Fitting:
    """The examples that are learnt from, and those left out."""

    places: Sequence[int]
    """Numbers of the examples that are kept."""
    counts: Mapping[str, float]
    words: str | None
    """What was left out, for people; None if nothing was."""


def usable(sides: Sequence[Sequence[Tokens | ChatFault]], what: str, section: str) -> list[tuple[int, Example]]:
    """Return the examples of which the chat template takes every side, with their numbers. Raises UserFault if there is none.

    Sampled answers may be what no template writes: a thought without an end, or a control token that is spelt out.
    """
    found, faults = list[tuple[int, Example]](), list[ChatFault]()
    for place, example in enumerate(zip(*sides, strict=True)):
        taken = tuple(side for side in example if isinstance(side, Tokens))
        faults += [side for side in example if isinstance(side, ChatFault)]
        if len(taken) == len(example):
            found.append((place, taken))
    if not found:
        message = f"the chat template takes none of the {len(sides[0])} {what}s; of the first it says: {faults[0]}"
        raise UserFault(Reason(field=section, message=message, remedy=faults[0].remedy))
    return found


def unsupervised(examples: Sequence[Example]) -> Unfit:
    """Return the examples of which a side has no token of an answer."""
    places = [place for place, example in enumerate(examples) if not all(side.supervised for side in example)]
    return Unfit("examples_too_long", places, "have no token of an answer within")


def fitting(what: str, names: Sequence[str], groups: Sequence[Unfit], field: str, limit: int) -> Fitting:
    """Return what is left of the examples with these names without the groups. Raises UserFault if nothing is.

    `field` is the setting with the `limit` of tokens.
    """
    left_out = {place for group in groups for place in group.places}
    places = [place for place in range(len(names)) if place not in left_out]
    said = "; ".join(
        f"{len(group.places)} of {len(names)} {what}s {group.why} the {limit} tokens of {field}: "
        f"{first_of([names[place] for place in group.places], _NAMED)}"
        for group in groups
        if group.places
    )
    if not places:
        raise UserFault(
            Reason(
                field=field,
                value=str(limit),
                message=f"no {what} is left to learn from: {said}",
                remedy=f"raise {field}, or shorten the prompts",
            )
        )
    return Fitting(places, {group.counter: float(len(group.places)) for group in groups}, said or None)


def columns(name: str, tokens: Tokens) -> dict[str, Sequence[int]]:
    """Return the columns of one chat in a row: its tokens, and 1 for those of the answer."""
    return {f"{name}_ids": tokens.ids, f"{name}_learnt": list(map(int, tokens.learnt))}


def refuse_unsupervised(sides: Sequence[Sequence[Tokens]], section: str, max_length: int) -> None:
    """Raise UserFault if an example has no token of an answer."""
    without = [number for side in sides for number, tokens in enumerate(side, 1) if not tokens.supervised]
    if without:
        raise UserFault(
            Reason(
                field=f"{section}.max_length",
                value=str(max_length),
                message=f"{len(without)} examples contain no token of an answer after the cut; the first is number "
                f"{without[0]}",
                remedy=f"raise {section}.max_length, shorten the prompts or remove the rows",
            )
        )
