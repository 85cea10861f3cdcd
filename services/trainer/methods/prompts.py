"""Prepares the training on sampled answers: prompts, how answers to them are sampled and rewarded, and what is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from schemas.answers import field_text
from schemas.lines import Row
from schemas.reasons import Reason, first_of
from schemas.recipes.online import OnlineSettings
from schemas.results import DATASET, REWARDS_MISSING
from services.chassis.executor.child import Context, UserFault
from services.language_models.chat_format.written import visible
from services.language_models.generation import Rng, rng
from services.trainer.data.rows import rows_of
from services.trainer.engine.method import Build, Figures, Method
from services.trainer.engine.rollouts import REWARDS_FAILED, Rollouts, Score
from services.trainer.engine.schedule import steps_of
from services.trainer.judging.judges import failures_of
from services.trainer.judging.reward_judge import JudgedReward, judged_text
from services.trainer.methods.rewards import Reward, Task, never_computed, reward_of, task_of
from services.trainer.methods.sampling import sampler
from services.trainer.steps.loading import LoadedModel, fetched

_NAMED = 3
_CUT = "completions/clipped_ratio"
_LENGTH = "completions/mean_length"
_EQUAL = "groups_without_deviation"
_FIGURES = {
    "reward": "reward",
    "reward_std": "reward_deviation",
    "frac_reward_zero_std": _EQUAL,
    "kl": "reference_distance",
    _LENGTH: "answer_tokens",
    _CUT: "answers_cut",
    REWARDS_FAILED: "rewards_failed",
}


@dataclass(frozen=True)
class Prompts:
    """The prompts of a training, with what their answers are rewarded by."""

    ids: Sequence[Sequence[int]]
    names: Sequence[str]
    """The ids of their rows."""
    tasks: Sequence[Task]
    left_out: str | None
    counts: Mapping[str, float]
    judges: Mapping[str, JudgedReward]
    """The judges of rewards, by the rewards' names."""


def prompts_of(
    context: Context, loaded: LoadedModel, settings: OnlineSettings, section: str, judges: Mapping[str, JudgedReward]
) -> Prompts:
    """Return the prompts that are not too long and whose answers can be rewarded. Raises UserFault if there is none."""
    rows = rows_of(fetched(context, DATASET), "train")
    every = loaded.chat.prompts(rows)
    tasks = [task_of(row) for row in rows]
    long = [place for place, ids in enumerate(every) if len(ids) > settings.max_prompt_tokens]
    unrewarded = [place for place, task in enumerate(tasks) if never_computed(settings.rewards, task)]
    left_out = {*long, *unrewarded}
    kept = [place for place in range(len(rows)) if place not in left_out]
    said = _said(rows, long, unrewarded, settings.max_prompt_tokens)
    if not kept:
        raise UserFault(
            Reason(
                field=f"{section}.max_prompt_tokens" if long else f"{section}.rewards",
                message=f"no prompt is left to learn from: {said or 'the training split has no rows'}",
                remedy=f"raise {section}.max_prompt_tokens, or name the columns that the rewards read",
            )
        )
    counts = {
        "examples": float(len(kept)),
        "prompts_too_long": float(len(long)),
        "prompts_unrewarded": float(len(unrewarded)),
    }
    names = [rows[place].id for place in kept]
    return Prompts([every[place] for place in kept], names, [tasks[place] for place in kept], said, counts, judges)


def rollouts(context: Context, loaded: LoadedModel, settings: OnlineSettings, prompts: Prompts, steps: int) -> Rollouts:
    """Return how answers are sampled and rewarded in the last `steps` steps of the training."""
    of = steps_of(settings.optimiser, len(prompts.ids), settings.group_size)

    def draws(key: int, number: int) -> list[Rng]:
        return [rng(key, number, way) for way in range(settings.group_size)]

    sample = sampler(context, loaded.chat, settings, draws, of - steps, of)
    scores = [
        _score(reward_of(reward), prompts.tasks)
        if reward.feedback is None
        else _judged(prompts.judges[reward.label], reward.feedback.judged_field, prompts.tasks)
        for reward in settings.rewards
    ]
    return Rollouts(loaded.chat, sample, [reward.label for reward in settings.rewards], scores)


def method_of(name: str, settings: OnlineSettings, prompts: Prompts, build: Build) -> Method:
    """Return the method of this name, with its trainer."""
    return Method(
        name=name,
        section=name,
        optimiser=settings.optimiser,
        rows=[{"prompt": list(ids), "row": number} for number, ids in enumerate(prompts.ids)],
        names=prompts.names,
        lengths=[len(ids) for ids in prompts.ids],
        longest=max(map(len, prompts.ids)) + settings.max_new_tokens,
        build=build,
        figures=_FIGURES | {f"rewards/{reward.label}/mean": f"reward_{reward.label}" for reward in settings.rewards},
        group=settings.group_size,
        generated=settings.max_new_tokens,
        temperature=settings.temperature,
        made=lambda logs: logs[_LENGTH] * settings.optimiser.batch_size,
        check=partial(_refuse_equal_rewards, name),
        counts=prompts.counts,
        left_out=prompts.left_out,
        facts=lambda: {REWARDS_MISSING: said} if (said := failures_of(prompts.judges)) else {},
    )


def arguments_of(settings: OnlineSettings) -> Mapping[str, Any]:
    """Return the arguments that TRL's settings of both methods share."""
    return {
        "num_generations": settings.group_size,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "mask_truncated_completions": not settings.learn_cut_answers,
        "reward_weights": [reward.weight for reward in settings.rewards],
        "shuffle_dataset": False,  # the rows are in the order of our schedule
        "remove_unused_columns": False,
        "router_aux_loss_coef": 0.0,  # the routers of a mixture of experts are frozen
    }


def _refuse_equal_rewards(section: str, curve: Sequence[Figures]) -> None:
    if all(point.get(_EQUAL) == 1 for point in curve):
        raise UserFault(
            Reason(
                field=f"{section}.rewards",
                message=f"nothing was learnt in {len(curve)} steps: all answers to each prompt had the same reward",
                remedy=f"reward what the model does sometimes, train it by sft first, or raise {section}.group_size or temperature",
            )
        )


def _score(reward: Reward, tasks: Sequence[Task]) -> Score:
    def score(rows: Sequence[int], answers: Sequence[str]) -> list[float | None]:
        return [reward(visible(answer), tasks[row]) for row, answer in zip(rows, answers, strict=True)]

    return score


def _judged(judge: JudgedReward, field: str | None, tasks: Sequence[Task]) -> Score:
    """All answers of a step are judged together; one without the text that is judged has no score."""

    def score(rows: Sequence[int], answers: Sequence[str]) -> list[float | None]:
        texts = [field_text(visible(answer), field) for answer in answers]
        asked = [
            judged_text(tasks[row].messages, tasks[row].columns, text)
            for row, text in zip(rows, texts, strict=True)
            if text is not None
        ]
        given = iter(judge.scores(asked))
        return [None if text is None else next(given) for text in texts]

    return score


def _said(rows: Sequence[Row], long: Sequence[int], unrewarded: Sequence[int], limit: int) -> str | None:
    groups = ((long, f"have more than {limit} tokens"), (unrewarded, "lack what a reward reads"))
    said = [
        f"{len(group)} of {len(rows)} prompts {what}: {first_of([rows[place].id for place in group], _NAMED)}"
        for group, what in groups
        if group
    ]
    return "; ".join(said) or None
