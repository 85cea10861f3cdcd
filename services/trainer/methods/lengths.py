"""Refuses examples that max_length leaves without an answer."""

from collections.abc import Sequence

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault
from services.trainer.modelling.chat import Tokens


def refuse_unsupervised(sides: Sequence[Sequence[Tokens]], field: str, max_length: int) -> None:
    """Raise UserFault if an example has no token of an answer."""
    without = [number for side in sides for number, tokens in enumerate(side, 1) if not tokens.supervised]
    if without:
        raise UserFault(
            Reason(
                field=f"{field}.max_length",
                value=str(max_length),
                message=f"{len(without)} examples contain no token of an answer after the cut; the first is number "
                f"{without[0]}",
                remedy=f"raise {field}.max_length, shorten the prompts or remove the rows",
            )
        )
