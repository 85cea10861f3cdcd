"""Checks in `prepare` that the rows suit a training on sampled answers: prompts of a length that it reads, and what rewards need."""

from collections.abc import Iterator, Mapping

from schemas.lines import Row
from schemas.reasons import Reason
from schemas.recipes.online import OnlineSettings
from schemas.steps import PrepareSettings
from services.chassis.executor.child import UserFault
from services.language_models.chat_format.tokens import Tokens
from services.trainer.data.bad_rows import Places, rows_are
from services.trainer.data.columns import RowFault
from services.trainer.methods.rewards import never_computed, task_of


def online_of(settings: PrepareSettings) -> Mapping[str, OnlineSettings]:
    """Return the trainings on sampled answers that follow, by the request's field."""
    return {section: given for section, given in settings.methods.items() if isinstance(given, OnlineSettings)}


class PromptCheck:
    """Hears of each row of the training split, and says at the end what was found."""

    def __init__(self, settings: PrepareSettings) -> None:
        self._online = online_of(settings)
        self._long = {section: Places() for section in self._online}
        self._rows = 0

    def __call__(self, place: str, row: Row, tokens: Tokens) -> None:
        """Note a row. Raises RowFault if no answer to it can have a reward."""
        if not self._online:
            return
        if not row.messages:
            what = "the row is a plain text, and answers are sampled to prompts"
            raise RowFault("dataset.layout", what, "send rows with prompts, or request the pipeline sft")
        self._rows += 1
        prompt, task = tokens.before_last_answer if row.answered else len(tokens), task_of(row)
        for section, settings in self._online.items():
            if lacking := never_computed(settings.rewards, task):
                what = f"the reward {lacking.label} cannot be computed: the row lacks the reference, number, field or column that it reads"
                remedy = (
                    "name the column with the reference in dataset.columns.completion, correct or remove the row, or leave the "
                    f"reward out of {section}.rewards"
                )
                raise RowFault(f"{section}.rewards", what, remedy)
            if prompt > settings.max_prompt_tokens:
                self._long[section].note(place)

    def refuse(self) -> None:
        """Raise UserFault if the prompts of all rows are too long."""
        reasons = [
            Reason(
                field=f"{section}.max_prompt_tokens",
                value=str(self._online[section].max_prompt_tokens),
                message=f"the prompts of all {long.number} rows are longer",
                remedy="raise it, or shorten the prompts",
            )
            for section, long in self._long.items()
            if long.number and long.number == self._rows
        ]
        if reasons:
            raise UserFault(*reasons)

    def metrics(self) -> dict[str, float]:
        """Return the number of prompts that a training leaves out."""
        return {"prompts_too_long": float(max(long.number for long in self._long.values()))} if self._long else {}

    def notes(self) -> Iterator[str]:
        """Say which prompts are left out."""
        for section, long in self._long.items():
            if long.number:
                limit = self._online[section].max_prompt_tokens
                yield f"{rows_are(long.number)} left out of {section}: the prompt is longer than {limit} tokens ({long})"
