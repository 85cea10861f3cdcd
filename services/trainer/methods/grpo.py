"""Group relative policy optimisation (Shao et al. 2024): samples answers, rewards them, and learns those that beat their group."""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.recipes.grpo import GrpoSettings
from services.chassis.executor.child import Context
from services.trainer.engine.method import Method
from services.trainer.judging.reward_judge import JudgedReward
from services.trainer.methods.prompts import arguments_of, method_of, prompts_of, rollouts
from services.trainer.steps.loading import LoadedModel


def grpo(context: Context, loaded: LoadedModel, settings: GrpoSettings, judges: Mapping[str, JudgedReward]) -> Method:
    """Makes answers likelier that are rewarded above the mean of their group, the same however a batch is cut into parts."""
    prompts = prompts_of(context, loaded, settings, "grpo", judges)

    def build(model: Any, arguments: Mapping[str, Any], rows: Any, on_part: Callable[[], None]) -> Any:
        from trl import GRPOConfig

        from services.trainer.engine.rollouts import GrpoTrainer

        config = GRPOConfig(
            **arguments,
            **arguments_of(settings),
            beta=settings.beta,
            loss_type=settings.loss,
            scale_rewards=settings.scale_rewards,
        )
        return GrpoTrainer(model, config, rows, rollouts(context, loaded, settings, prompts, arguments["max_steps"]))

    return method_of("grpo", settings, prompts, build)
