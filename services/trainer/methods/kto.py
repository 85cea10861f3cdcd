"""KTO (Ethayarajh et al. 2024): trains on single answers that are wanted or not; the reference is the adapter before training.

The log-probabilities of the reference are computed once, before the first step.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.lines import Judged, Preference
from schemas.reasons import Reason
from schemas.recipes.kto import KtoSettings
from schemas.results import PREFERENCES
from services.chassis.executor.child import Context, UserFault
from services.chassis.storage.json_lines import read_lines
from services.language_models.chat_format.chat import Tokens
from services.trainer.engine.method import Method
from services.trainer.engine.schedule import by_length, used_examples
from services.trainer.methods.fitting import columns, fitting, unsupervised, usable
from services.trainer.steps.loading import LoadedModel, fetched


def kto(context: Context, loaded: LoadedModel, settings: KtoSettings) -> Method:
    """Makes wanted answers likelier and unwanted ones less likely, the same however a batch is cut into parts."""
    judged = _judged(fetched(context, PREFERENCES))
    chats = [(answer.messages, answer.completion, answer.tools) for answer in judged]
    taken = usable([loaded.chat.try_encode(chats, "last")], "answer", "kto")
    cut = [tokens.cut(settings.max_length) for _, (tokens,) in taken]
    names = [judged[place].id for place, _ in taken]
    fits = fitting("answer", names, [unsupervised([(tokens,) for tokens in cut])], "kto.max_length", settings.max_length)
    kept = [cut[place] for place in fits.places]
    labels = [judged[taken[place][0]].label for place in fits.places]
    _refuse_one_kind(labels)
    others = _others(kept, settings.max_length)

    def build(model: Any, arguments: Mapping[str, Any], rows: Any, on_part: Callable[[], None]) -> Any:
        from trl import KTOConfig

        from services.trainer.engine.answers import AnswerTrainer

        config = KTOConfig(
            **arguments,
            beta=settings.beta,
            loss_type="kto" if settings.loss == "kto" else "apo_zero_unpaired",
            desirable_weight=settings.desirable_weight,
            undesirable_weight=settings.undesirable_weight,
            max_length=None,
            remove_unused_columns=False,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=arguments["per_device_train_batch_size"],
            disable_dropout=False,
            router_aux_loss_coef=0.0,  # the routers of a mixture of experts are frozen
        )
        return AnswerTrainer(model, config, rows, loaded.chat, on_part)

    lengths = [len(answer) for answer in kept]
    used = used_examples(settings.optimiser, lengths, settings.seed)
    return Method(
        name="kto",
        section="kto",
        optimiser=settings.optimiser,
        rows=[
            {**columns("answer", answer), **columns("other", other), "label": label}
            for answer, other, label in zip(kept, others, labels, strict=True)
        ],
        names=[names[place] for place in fits.places],
        lengths=lengths,
        longest=max(map(len, (*kept, *others))),
        build=build,
        figures={"rewards/margins": "reward_margin", "kl": "reference_distance"},
        counts={
            "examples": float(len(kept)),
            "examples_wanted": float(sum(labels)),
            "examples_used": float(len(used)),
            "examples_refused": float(len(judged) - len(taken)),
            **fits.counts,
        },
        left_out=fits.words,
    )


def _judged(folder: Path) -> Sequence[Judged]:
    """Return the judged answers; each pair of preferences is two."""
    if (folder / Judged.FILE).exists():
        return read_lines(folder / Judged.FILE, Judged)
    return [
        Judged(id=pair.id, messages=pair.messages, completion=answer, label=wanted, tools=pair.tools)
        for pair in read_lines(folder / Preference.FILE, Preference)
        for answer, wanted in ((pair.chosen, True), (pair.rejected, False))
    ]


def _refuse_one_kind(labels: Sequence[bool]) -> None:
    wanted = sum(labels)
    if not wanted or wanted == len(labels):
        raise UserFault(
            Reason(
                field="pipeline",
                value=f"{wanted} wanted and {len(labels) - wanted} unwanted answers",
                message="kto learns from the difference between wanted and unwanted answers, and needs both",
                remedy="add answers of the other kind; wanted answers alone can be learnt with method sft",
            )
        )


def _others(answers: Sequence[Tokens], max_length: int) -> list[Tokens]:
    """Return each prompt with an answer to another one, of like length, from which the reference point is estimated."""
    order = by_length(range(len(answers)), [len(answer) for answer in answers])
    others: dict[int, Tokens] = {}
    for position, place in enumerate(order):
        own = answers[place]
        following = (answers[order[(position + step) % len(order)]] for step in range(1, len(order)))
        other = next((answer for answer in following if answer.prompt != own.prompt), own)
        others[place] = Tokens.of(own.prompt, other.completion).cut(max_length)
    return [others[place] for place in range(len(answers))]
