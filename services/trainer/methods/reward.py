"""Reward models (Ouyang et al. 2022): trains an adapter and a head, so that the better answer of a pair has the higher score.

A pair is read as whole chats, at whose last tokens the scores are; a pair that is cut would have other ends, so it is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.lines import Preference, Split, held_out_pairs_file
from schemas.reasons import Reason
from schemas.recipes.reward import RewardModelSettings
from schemas.results import PREFERENCES
from services.chassis.executor.child import Context, UserFault
from services.chassis.storage.json_lines import read_lines
from services.language_models.lengths import context_length
from services.language_models.scoring import padding_beside, read_at_ends, scored_tokens
from services.trainer.engine.method import Figures, Method
from services.trainer.engine.padded import SidesPadding
from services.trainer.engine.schedule import micro_batch_size, used_examples
from services.trainer.methods.fitting import Unfit, fitting
from services.trainer.methods.held_out_pairs import TokenPair, margins, measured, validated
from services.trainer.methods.pairs import pairs_of, sides_of, usable_pairs
from services.trainer.steps.loading import LoadedModel, fetched


def reward(context: Context, loaded: LoadedModel, settings: RewardModelSettings) -> Method:
    """Makes the better answers' scores higher than the worse ones', the same however a batch is cut into parts."""
    folder = fetched(context, PREFERENCES)
    read = pairs_of(folder)
    taken = [read[place] for place, _ in usable_pairs(loaded.chat, read, "reward")]
    every = _tokens(loaded, taken)
    groups = _unfit(every, settings.max_length)
    kept = fitting("pair", [pair.id for pair in taken], groups, "reward.max_length", settings.max_length)
    pairs = [every[place] for place in kept.places]
    wanted = _wanted_margins([taken[place] for place in kept.places], settings.margin_scale)
    splits: tuple[Split, Split] = ("validation", "test")
    held_out = {split: _held_out(loaded, folder, split, settings.max_length) for split in splits}
    pad_id = padding_beside([side for group in (pairs, *held_out.values()) for pair in group for side in pair])
    at_once = micro_batch_size(settings.optimiser, context.task.memory_failures)

    def build(model: Any, arguments: Mapping[str, Any], rows: Any, on_part: Callable[[], None]) -> Any:
        from trl import RewardConfig, RewardTrainer

        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(
                **arguments,
                center_rewards_coefficient=settings.center_rewards_coefficient,
                max_length=None,
                remove_unused_columns=False,
                disable_dropout=False,
            ),
            train_dataset=rows,
            processing_class=loaded.chat.tokenizer,
            data_collator=SidesPadding(pad_id, context_length(model.config)),
        )
        read_at_ends(trainer.model.get_base_model(), pad_id)
        return trainer

    def validate(model: Any) -> Figures:
        return validated(model, held_out["validation"], pad_id, at_once)

    def measure(model: Any, on_part: Callable[[], None]) -> Figures:
        return measured(margins(model, held_out["test"], pad_id, at_once, on_part), settings.seed)

    lengths = [len(better) + len(worse) for better, worse in pairs]
    used = used_examples(settings.optimiser, lengths, settings.seed)
    longer = sum(len(better) > len(worse) for better, worse in pairs) / len(pairs)
    return Method(
        name="reward",
        section="reward",
        optimiser=settings.optimiser,
        rows=[
            {"chosen_ids": better, "rejected_ids": worse, **margin}
            for (better, worse), margin in zip(pairs, wanted, strict=True)
        ],
        names=[taken[place].id for place in kept.places],
        lengths=lengths,
        longest=max(len(side) for pair in pairs for side in pair),
        build=build,
        figures={"accuracy": "reward_accuracy", "margin": "reward_margin", "mean_reward": "reward_mean"},
        validate=validate,
        measure=measure,
        lean_head=False,
        counts={
            "examples": float(len(pairs)),
            "examples_used": float(len(used)),
            "chosen_longer": longer,
            **kept.counts,
            "examples_refused": float(len(read) - len(taken)),
        },
        left_out=kept.words,
    )


def _tokens(loaded: LoadedModel, pairs: Sequence[Preference]) -> list[TokenPair]:
    better, worse = (scored_tokens(loaded.chat.tokenizer, side) for side in sides_of(pairs))
    return list(zip(better, worse, strict=True))


def _unfit(pairs: Sequence[TokenPair], max_length: int) -> list[Unfit]:
    long = [place for place, pair in enumerate(pairs) if max(map(len, pair)) > max_length]
    equal = [place for place, (better, worse) in enumerate(pairs) if list(better) == list(worse)]
    short = sorted(set(equal).difference(long))
    return [
        Unfit("examples_too_long", long, "are longer than"),
        Unfit("examples_equal", short, "have equal answers within"),
    ]


def _wanted_margins(pairs: Sequence[Preference], scale: float) -> list[dict[str, float]]:
    """Return the column with the margin of each pair; empty without a scale. Raises UserFault if a pair has no scores."""
    if not scale:
        return [{} for _ in pairs]
    found = []
    for pair in pairs:
        if pair.chosen_score is None or pair.rejected_score is None:
            message = f"the pair {pair.id} has no scores of a judge, by whose difference the learnt scores should differ"
            remedy = "set it to 0, or take the pairs of a step of kind label"
            raise UserFault(Reason(field="reward.margin_scale", value=str(scale), message=message, remedy=remedy))
        found.append({"margin": scale * (pair.chosen_score - pair.rejected_score)})
    return found


def _held_out(loaded: LoadedModel, folder: Path, split: Split, max_length: int) -> list[TokenPair]:
    """Return the pairs of a split that is not trained on, without those that are too long or that the template refuses."""
    file = folder / held_out_pairs_file(split)
    read = read_lines(file, Preference) if file.exists() else []
    taken = [read[place] for place, _ in usable_pairs(loaded.chat, read, "reward")] if read else []
    every = _tokens(loaded, taken)
    left_out = {place for group in _unfit(every, max_length) for place in group.places}
    return [pair for place, pair in enumerate(every) if place not in left_out]
