"""Direct preference optimisation (Rafailov et al. 2023): trains on pairs; the reference is the adapter before training.

The reference does not change, so its log-probabilities are computed once, before the first step, with the weights that
training starts from.
"""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.lines import Preference
from schemas.reasons import Reason
from schemas.recipes.dpo import PreferenceSettings
from schemas.results import PREFERENCES
from services.chassis.executor.child import Context, UserFault
from services.chassis.storage.json_lines import read_lines
from services.trainer.engine.method import Method
from services.trainer.engine.schedule import used_examples
from services.trainer.methods.fitting import columns, fitting_pairs, usable_pairs
from services.trainer.steps.loading import LoadedModel, fetched


def dpo(context: Context, loaded: LoadedModel, settings: PreferenceSettings) -> Method:
    """The weighted sum of preference losses over pairs of answers, the same however a batch is cut into parts."""
    read = read_lines(fetched(context, PREFERENCES) / Preference.FILE, Preference)
    if not read:
        message = "there is no preference pair for the training"
        remedy = "sample more prompts or candidates, lower feedback.margin, or read the report of the label step"
        raise UserFault(Reason(field="feedback", value="0 pairs", message=message, remedy=remedy))
    sides = (
        [(pair.messages, pair.chosen, pair.tools) for pair in read],
        [(pair.messages, pair.rejected, pair.tools) for pair in read],
    )
    usable = usable_pairs(*(loaded.chat.try_encode(side, "last") for side in sides))
    every = [(better.cut(settings.max_length), worse.cut(settings.max_length)) for _, (better, worse) in usable]
    fitting = fitting_pairs(every, [read[place].id for place, _ in usable], "preference", settings.max_length)
    pairs = [every[place] for place in fitting.places]

    def build(model: Any, arguments: Mapping[str, Any], rows: Any, on_part: Callable[[], None]) -> Any:
        from trl import DPOConfig

        from services.trainer.engine.pairs import PairTrainer

        config = DPOConfig(
            **arguments,
            beta=settings.beta,
            label_smoothing=settings.label_smoothing,
            max_length=None,
            remove_unused_columns=False,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=arguments["per_device_train_batch_size"],
            disable_dropout=False,
            router_aux_loss_coef=0.0,  # the routers of a mixture of experts are frozen
        )
        anchored = {"sigmoid": f"apo_{settings.apo}"} if settings.apo else {}
        losses: dict[str, float] = {}
        for term in settings.losses:
            kind = anchored.get(term.kind, term.kind)
            losses[kind] = losses.get(kind, 0.0) + term.weight
        return PairTrainer(model, config, rows, loaded.chat, losses, on_part)

    lengths = [len(better) + len(worse) for better, worse in pairs]
    longer = sum(better.supervised > worse.supervised for better, worse in pairs) / len(pairs)
    used = used_examples(settings.optimiser, lengths, settings.seed)
    return Method(
        name="dpo",
        section="preference",
        optimiser=settings.optimiser,
        rows=[{**columns("chosen", better), **columns("rejected", worse)} for better, worse in pairs],
        lengths=lengths,
        longest=max(len(side) for pair in pairs for side in pair),
        build=build,
        figures={"rewards/margins": "reward_margin", "rewards/accuracies": "reward_accuracy"},
        counts={
            "examples": float(len(pairs)),
            "examples_used": float(len(used)),
            "chosen_longer": longer,
            **fitting.counts,
            "examples_refused": float(len(read) - len(usable)),
        },
        left_out=fitting.words,
    )
