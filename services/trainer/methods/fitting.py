"""Chooses the examples that are left to learn from when all are cut to max_length, and says which are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.reasons import Reason, first_of
from services.chassis.executor.child import UserFault
from services.trainer.modelling.chat import ChatFault, Tokens

_NAMED = 3
Pair = tuple[Tokens, Tokens]


@dataclass(frozen=True)
class Fitting:
    """The examples that are learnt from, and those left out."""

    places: Sequence[int]
    """Numbers of the examples that are kept."""
    counts: Mapping[str, float]
    words: str | None
    """What was left out, for people; None if nothing was."""


def usable_pairs(chosen: Sequence[Tokens | ChatFault], rejected: Sequence[Tokens | ChatFault]) -> list[tuple[int, Pair]]:
    """Return the pairs that the chat template takes, with their numbers. Raises UserFault if it takes none.

    Sampled answers may be what no template writes: a thought without an end, or a control token that is spelt out.
    """
    found = []
    faults = []
    for place, pair in enumerate(zip(chosen, rejected, strict=True)):
        better, worse = pair
        if isinstance(better, ChatFault) or isinstance(worse, ChatFault):
            faults += [side for side in pair if isinstance(side, ChatFault)]
        else:
            found.append((place, (better, worse)))
    if not found:
        message = f"the chat template takes none of the {len(chosen)} pairs; of the first it says: {faults[0]}"
        raise UserFault(Reason(field="preference", message=message, remedy=faults[0].remedy))
    return found


def usable_answers(answers: Sequence[Tokens | ChatFault]) -> list[tuple[int, Tokens]]:
    """Return the answers that the chat template takes, with their numbers. Raises UserFault if it takes none."""
    found = [(place, answer) for place, answer in enumerate(answers) if isinstance(answer, Tokens)]
    faults = [answer for answer in answers if isinstance(answer, ChatFault)]
    if not found:
        message = f"the chat template takes none of the {len(answers)} answers; of the first it says: {faults[0]}"
        raise UserFault(Reason(field="kto", message=message, remedy=faults[0].remedy))
    return found


def fitting_pairs(pairs: Sequence[Pair], names: Sequence[str], section: str, max_length: int) -> Fitting:
    """Leave out pairs of which an answer has no token after the cut, and pairs whose answers are equal after it.

    Raises UserFault if no pair is left.
    """
    long = [place for place, pair in enumerate(pairs) if not all(side.supervised for side in pair)]
    too_long = set(long)
    equal = [place for place, pair in enumerate(pairs) if place not in too_long and _same(*pair)]
    left_out = {*long, *equal}
    places = [place for place in range(len(pairs)) if place not in left_out]
    said = [
        f"{len(group)} of {len(pairs)} pairs {what} {max_length} tokens of {section}.max_length: {_named(group, names)}"
        for group, what in ((long, "have no token of an answer within the"), (equal, "have equal answers within the"))
        if group
    ]
    if not places:
        raise _nothing_left("pair", "; ".join(said), section, max_length)
    counts = {"examples_too_long": float(len(long)), "examples_equal_once_cut": float(len(equal))}
    return Fitting(places, counts, "; ".join(said) or None)


def fitting_answers(answers: Sequence[Tokens], names: Sequence[str], section: str, max_length: int) -> Fitting:
    """Leave out answers that have no token after the cut. Raises UserFault if none is left."""
    long = [place for place, tokens in enumerate(answers) if not tokens.supervised]
    places = [place for place, tokens in enumerate(answers) if tokens.supervised]
    said = f"{len(long)} of {len(answers)} answers have no token within the {max_length} tokens of {section}.max_length"
    if not places:
        raise _nothing_left("answer", said, section, max_length)
    return Fitting(places, {"examples_too_long": float(len(long))}, f"{said}: {_named(long, names)}" if long else None)


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


def _nothing_left(what: str, said: str, section: str, max_length: int) -> UserFault:
    return UserFault(
        Reason(
            field=f"{section}.max_length",
            value=str(max_length),
            message=f"no {what} is left to learn from: {said}",
            remedy=f"raise {section}.max_length, or shorten the prompts",
        )
    )


def _same(chosen: Tokens, rejected: Tokens) -> bool:
    return list(chosen.ids) == list(rejected.ids)


def _named(places: Sequence[int], names: Sequence[str]) -> str:
    return first_of([names[place] for place in places], _NAMED)
