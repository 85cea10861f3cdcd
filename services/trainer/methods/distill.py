"""On-policy distillation (Agarwal et al. 2024): samples answers, and learns how likely a teacher finds each of their tokens."""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.recipes.distill import DistillSettings
from schemas.results import DATASET
from services.chassis.executor.child import Context
from services.language_models.generation import rng
from services.trainer.data.rows import rows_of
from services.trainer.engine.method import Method
from services.trainer.engine.schedule import steps_of
from services.trainer.methods.fitting import Unfit, fitting
from services.trainer.methods.sampling import sampler
from services.trainer.modelling.base import load_base
from services.trainer.modelling.teacher import teacher_folder
from services.trainer.steps.loading import LoadedModel, fetched

_LENGTH = "completions/mean_length"


def distill(context: Context, loaded: LoadedModel, settings: DistillSettings) -> Method:
    """Brings the model's probabilities near the teacher's on the model's own answers, the same however a batch is cut into parts."""
    rows = rows_of(fetched(context, DATASET), "train")
    every = loaded.chat.prompts(rows)
    long = [place for place, ids in enumerate(every) if len(ids) > settings.max_prompt_tokens]
    groups = [Unfit("prompts_too_long", long, "are longer than")]
    kept = fitting("prompt", [row.id for row in rows], groups, "distill.max_prompt_tokens", settings.max_prompt_tokens)
    prompts = [every[place] for place in kept.places]
    chat, teacher = loaded.chat, teacher_folder(settings, context)
    steps = steps_of(settings.optimiser, len(prompts))

    def build(model: Any, arguments: Mapping[str, Any], examples: Any, on_part: Callable[[], None]) -> Any:
        from trl import DistillationConfig

        from services.trainer.engine.distillation import TeachingTrainer

        done = steps - int(arguments["max_steps"])
        sample = sampler(context, chat, settings, lambda key, number: [rng(key, number)], done, steps)
        config = DistillationConfig(
            **arguments,
            beta=settings.beta,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_completion_length=settings.max_new_tokens,
            shuffle_dataset=False,  # the rows are in the order of our schedule
            remove_unused_columns=False,
            disable_dropout=False,
        )
        knows = load_base(teacher, loaded.dtype, loaded.device).eval()
        return TeachingTrainer(model, knows, config, examples, chat, sample)

    return Method(
        name="distill",
        section="distill",
        optimiser=settings.optimiser,
        rows=[{"prompt": list(ids)} for ids in prompts],
        names=[rows[place].id for place in kept.places],
        lengths=[len(ids) for ids in prompts],
        longest=max(map(len, prompts)) + settings.max_new_tokens,
        build=build,
        figures={"entropy": "entropy", _LENGTH: "answer_tokens", "completions/clipped_ratio": "answers_cut"},
        lean_head=False,
        generated=settings.max_new_tokens,
        made=lambda logs: logs[_LENGTH] * settings.optimiser.batch_size,
        counts={"examples": float(len(prompts)), **kept.counts},
        left_out=kept.words,
    )
