"""REINFORCE leave-one-out (Ahmadian et al. 2024): samples answers, rewards them, and compares each with the mean of the others."""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.recipes.rloo import RlooSettings
from services.chassis.executor.child import Context
from services.trainer.engine.method import Method
from services.trainer.judging.reward_judge import JudgedReward
from services.trainer.methods.prompts import arguments_of, method_of, prompts_of, rollouts
from services.trainer.steps.loading import LoadedModel


def rloo(context: Context, loaded: LoadedModel, settings: RlooSettings, judges: Mapping[str, JudgedReward]) -> Method:
    """Makes answers likelier that are rewarded above the others to their prompt, the same however a batch is cut into parts."""
    prompts = prompts_of(context, loaded, settings, "rloo", judges)

    def build(model: Any, arguments: Mapping[str, Any], rows: Any, on_part: Callable[[], None]) -> Any:
        from trl import RLOOConfig

        from services.trainer.engine.rollouts import RlooTrainer

        config = RLOOConfig(
            **arguments,
            **arguments_of(settings),
            beta=settings.beta,
            normalize_advantages=settings.normalise_advantages,
            disable_dropout=True,  # an input adapter's would make its two passes differ
        )
        return RlooTrainer(model, config, rows, rollouts(context, loaded, settings, prompts, arguments["max_steps"]))

    return method_of("rloo", settings, prompts, build)
