"""The judges of all rewards of a training, each ready to score, and what the step's result says about them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager

from schemas.judgements import registered_judge
from schemas.recipes.rewards import RewardSettings
from schemas.results import ROOT_MODEL
from schemas.steps import PrepareSettings, TrainSettings
from services.chassis.executor.child import Context, Stopping
from services.chassis.storage.line_cache import LineCache
from services.trainer.judging.reward_judge import JudgedReward, KeptScore
from services.trainer.judging.service import address_of_service


def judges_of(
    context: Context, rewards: Sequence[RewardSettings], section: str, *, probe: bool = False
) -> Mapping[str, JudgedReward]:
    """Return the judges of the rewards of kind judge, by the rewards' names, each ready. Raises UserFault and TooFewScores.

    With `probe` each scores a text, so that a wrong key or model is found before anything is loaded.
    """
    found = dict[str, JudgedReward]()
    for number, reward in enumerate(rewards):
        if reward.feedback is not None:
            place = f"{section}.rewards.{number}.feedback"
            version = registered_judge(reward.feedback.judge, context.task.results)
            address = address_of_service(place)
            judge = JudgedReward(place, reward.feedback, _base_model(context), version, address, _ticking(context))
            judge.introduce(probe=probe)
            found[reward.label] = judge
    return found


@contextmanager
def keeping_scores(context: Context, judges: Mapping[str, JudgedReward]) -> Iterator[None]:
    """Within this block the judges keep their scores beside the checkpoints, and recall those of earlier runs of the step."""
    task = context.task
    with ExitStack() as files:
        for name, judge in judges.items():
            kept = LineCache(KeptScore, task.checkpoints, task.own_checkpoints, f"scores-{name}-{task.rank}.jsonl")
            judge.kept = files.enter_context(closing(kept))
        yield


def facts_of(judges: Mapping[str, JudgedReward]) -> dict[str, str]:
    """Return the facts about all judges; of several, separated by commas."""
    every = [judge.identity.facts for judge in judges.values()]
    names = dict.fromkeys(name for facts in every for name in facts)
    return {name: ", ".join(facts[name] for facts in every if name in facts) for name in names}


def failures_of(judges: Mapping[str, JudgedReward]) -> str | None:
    """Return in words how many answers of this run have no score, and why; None if all have one."""
    said = [f"{number} answers without {name}: {why}" for name, of in judges.items() for why, number in of.failures.items()]
    return "; ".join(said) or None


def _base_model(context: Context) -> str:
    """Return the base model that no job made, which is the default of a local judge, as in steps of the feedback service."""
    settings = context.task.settings
    if not isinstance(settings, PrepareSettings | TrainSettings):
        raise TypeError(f"a step of kind {settings.kind} has no rewards")
    results = context.task.results.values()
    return next((result.facts[ROOT_MODEL] for result in results if ROOT_MODEL in result.facts), settings.base_model)


def _ticking(context: Context) -> Callable[[], None]:
    def tick() -> None:
        if context.stopping:
            raise Stopping
        context.alive()

    return tick
