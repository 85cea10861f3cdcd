"""Supervised fine-tuning: trains on the answers of the rows; prompts are context without loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schemas.lines import Row
from schemas.recipes.sft import TrainingSettings
from schemas.results import DATASET
from services.chassis.executor.child import Context
from services.language_models.chat_format.chat import Tokens
from services.language_models.chat_format.tokens import answers_of
from services.language_models.lengths import context_length
from services.trainer.data.rows import rows_of
from services.trainer.engine.method import Figures, Method
from services.trainer.engine.padded import SupervisedPadding
from services.trainer.methods.fitting import refuse_unsupervised
from services.trainer.modelling.likelihood import log_probabilities, pad
from services.trainer.modelling.packing import FLASH, Packing
from services.trainer.steps.loading import LoadedModel, fetched

_UNSUPERVISED = -100
_VALIDATED_AT_MOST = 32
"""The most rows of the validation split that are measured, so that validation takes little of the training time."""
_VALIDATED_AT_ONCE = 8


def sft(context: Context, loaded: LoadedModel, settings: TrainingSettings) -> Method:
    """Mean cross-entropy over the supervised tokens of a batch, however it is cut into parts."""
    folder = fetched(context, DATASET)

    def tokens_of(rows: Sequence[Row]) -> list[Tokens]:
        return [tokens.cut(settings.max_length) for tokens in loaded.chat.encode(rows, settings.assistant_turns)]

    rows = rows_of(folder, "train")
    names = [row.id for row in rows]
    learnt, held_out = tokens_of(rows), tokens_of(rows_of(folder, "validation"))
    refuse_unsupervised([learnt, held_out], "training", settings.max_length)

    def build(model: Any, arguments: Mapping[str, Any], rows: Any, on_part: Callable[[], None]) -> Any:
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer(
            model=model,
            args=SFTConfig(
                **arguments,
                max_length=None,
                neftune_noise_alpha=settings.neftune_alpha,
                dataset_kwargs={"skip_prepare_dataset": True},
                router_aux_loss_coef=0.0,  # the routers of a mixture of experts are frozen
            ),
            train_dataset=rows,
            processing_class=loaded.chat.tokenizer,
            data_collator=_collator(model, settings, loaded.chat.pad_id),
        )

    def validate(model: Any) -> Figures:
        """Mean loss per supervised token."""
        total, measured = 0.0, 0
        chosen = sorted(held_out[:_VALIDATED_AT_MOST], key=len)
        for start in range(0, len(chosen), _VALIDATED_AT_ONCE):
            padded = pad(chosen[start : start + _VALIDATED_AT_ONCE], loaded.chat.pad_id, loaded.device)
            values = log_probabilities(model, padded)[0]
            total, measured = total - values.sum().item(), measured + len(values)
        return {"validation_loss": total / measured} if measured else {}

    lengths = [len(tokens) for tokens in learnt]
    return Method(
        name="sft",
        section="training",
        optimiser=settings.optimiser,
        rows=[_row(tokens) for tokens in learnt],
        names=names,
        lengths=lengths,
        longest=max(lengths),
        build=build,
        validate=validate,
        counts={"examples": float(len(learnt)), **answers_of(learnt)},
    )


def _collator(model: Any, settings: TrainingSettings, pad_id: int) -> Any:
    if not settings.packing:
        return SupervisedPadding(pad_id, context_length(model.config))
    return Packing(None if model.config._attn_implementation == FLASH else settings.max_length, pad_id)


def _row(tokens: Tokens) -> dict[str, Sequence[int]]:
    labels = [token if learnt else _UNSUPERVISED for token, learnt in zip(tokens.ids, tokens.learnt, strict=True)]
    return {"input_ids": tokens.ids, "labels": labels}
