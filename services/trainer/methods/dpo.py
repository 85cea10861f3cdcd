"""Direct preference optimisation (Rafailov et al. 2023): trains on pairs; the reference is the adapter before training.

The reference does not change, so its log-probabilities are computed once, before the first step, with the weights that
training starts from.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schemas.recipes.dpo import PreferenceSettings
from schemas.results import PREFERENCES
from services.chassis.executor.child import Context
from services.language_models.chat_format.chat import Tokens
from services.trainer.engine.method import Method
from services.trainer.engine.schedule import used_examples
from services.trainer.methods.fitting import Unfit, columns, fitting, unsupervised
from services.trainer.methods.pairs import pairs_of, usable_pairs
from services.trainer.steps.loading import LoadedModel, fetched


def dpo(context: Context, loaded: LoadedModel, settings: PreferenceSettings) -> Method:
    """The weighted sum of preference losses over pairs of answers, the same however a batch is cut into parts."""
    read = pairs_of(fetched(context, PREFERENCES))
    usable = usable_pairs(loaded.chat, read, "preference")
    every = [(better.cut(settings.max_length), worse.cut(settings.max_length)) for _, (better, worse) in usable]
    groups = [unsupervised(every), _equal(every)]
    names = [read[place].id for place, _ in usable]
    kept = fitting("pair", names, groups, "preference.max_length", settings.max_length)
    pairs = [every[place] for place in kept.places]

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
        names=[names[place] for place in kept.places],
        lengths=lengths,
        longest=max(len(side) for pair in pairs for side in pair),
        build=build,
        figures={"rewards/margins": "reward_margin", "rewards/accuracies": "reward_accuracy"},
        counts={
            "examples": float(len(pairs)),
            "examples_used": float(len(used)),
            "chosen_longer": longer,
            **kept.counts,
            "examples_refused": float(len(read) - len(usable)),
        },
        left_out=kept.words,
    )


def _equal(pairs: Sequence[tuple[Tokens, Tokens]]) -> Unfit:
    """Return the pairs whose answers are equal once they are cut, and not cut away."""
    whole = [(place, pair) for place, pair in enumerate(pairs) if all(side.supervised for side in pair)]
    places = [place for place, (better, worse) in whole if list(better.ids) == list(worse.ids)]
    return Unfit("examples_equal_once_cut", places, "have equal answers within")
