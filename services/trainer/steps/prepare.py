"""Step `prepare`: reads the data set, validates it row by row and stores it, and checks the base model."""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from schemas.jobs import StepResult
from schemas.lines import Row, Split, split_file
from schemas.reasons import Reason, shown
from schemas.recipes import DatasetSettings
from schemas.results import BASE_MODEL_SHA256, CHAT_TEMPLATE_SHA256, DATASET, DATASET_SHA256
from schemas.steps import PrepareSettings
from services.chassis.executor.child import ChildTask, Context, Stopping, UserFault
from services.chassis.storage.digests import file_sha256
from services.chassis.storage.json_lines import write_lines
from services.chassis.storage.sources.models import brings_code
from services.trainer.data.mapping import RowFault, row_of
from services.trainer.data.raw import RawRow
from services.trainer.data.sources import read
from services.trainer.data.splitting import prompt_key, split_of
from services.trainer.modelling.base_files import base_digest, base_fault, base_folder
from services.trainer.modelling.chat import Chat, ChatFault, Tokens

_REASONS_AT_MOST = 10
_PLACES_AT_MOST = 3
_BATCH = 500
Rows = Mapping[Split, Sequence[tuple[str, Row]]]
"""Rows of each split with their positions in the source."""


def prepare(context: Context) -> StepResult:
    """Make the `dataset` artifact. Raises UserFault with every kind of fault found, each with its rows and remedy."""
    settings = context.task.settings
    if not isinstance(settings, PrepareSettings):
        raise TypeError(f"settings of kind {settings.kind} do not prepare")
    base = base_folder(settings.base_model, context.task)
    chat, context_length = _checked(base, settings)
    rows = _rows(settings.dataset, context.task)
    _refuse_empty(rows, settings.dataset)
    _refuse_duplicates(rows)
    counts = _count_tokens(context, rows, chat, settings.max_length)
    facts = {BASE_MODEL_SHA256: base_digest(base, context), CHAT_TEMPLATE_SHA256: chat.template_sha256}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, placed in rows.items():
            write_lines(folder / split_file(split), (row for _, row in placed))
        digests = {split: file_sha256(folder / split_file(split)) for split in rows}
        facts[DATASET_SHA256] = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        metrics = {**_metrics(rows), **counts}
        described = {
            "reference": settings.dataset.reference, "sha256": digests, **facts, "max_length": settings.max_length,
            "context_length": context_length, **metrics,
        }  # fmt: skip
        (folder / "dataset.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        outputs = {DATASET: context.store.put(folder)}
    return StepResult(outputs=outputs, metrics=metrics, facts=facts)


def _checked(base: Path, settings: PrepareSettings) -> tuple[Chat, int | None]:
    """Return the base model's chat format and context length in tokens. Raises UserFault if the model cannot be trained."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    def fault(message: str, remedy: str) -> UserFault:
        return base_fault(settings.base_model, message, remedy)

    try:
        config = AutoConfig.from_pretrained(str(base), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises whatever its parsers raise
        if brings_code(base):
            raise fault(
                "it needs its own code, which is never run", "name a model whose architecture is part of transformers"
            ) from error
        what = f"its config.json cannot be read ({type(error).__name__})"
        raise fault(what, "name a folder that transformers can load") from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise fault("models of its type do not generate text", "name a causal language model")
    if not any(base.glob("*.safetensors")):
        raise fault("it has no weights in safetensors", "convert it: other formats can run code when they are loaded")
    try:
        chat = Chat(base)
    except ChatFault as error:
        raise fault(str(error), "name a model that was tuned for chats, or add a chat template to its tokenizer") from error
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and settings.max_length > longest:
        raise UserFault(
            Reason(
                field="training.max_length",
                value=str(settings.max_length),
                message=f"the base model reads {longest} tokens at most",
                remedy=f"set training.max_length to {longest} or less",
            )
        )
    return chat, longest


def _rows(settings: DatasetSettings, task: ChildTask) -> Rows:
    """Return all rows as `Row` values, by split. Raises UserFault."""
    source = read(settings, task.cache, task.allowed)
    faults = _Faults()
    rows: dict[Split, list[tuple[str, Row]]] = {}
    for split, raw_rows in source.items() if isinstance(source, dict) else [(None, source)]:
        if split is not None:
            rows[split] = []
        for number, raw in enumerate(raw_rows, 1):
            try:
                row = row_of(raw, f"{split or 'row'}-{number}", settings)
            except RowFault as fault:
                faults.note(raw, fault)
            else:
                rows.setdefault(split or split_of(row, settings.split), []).append((raw.place, row))
    faults.raise_if_any()
    return rows


class _Faults:
    """Collects faults: equal faults of many rows become one reason, in the order of their first rows."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str, str], list[str]] = {}

    def note(self, raw: RawRow, fault: RowFault) -> None:
        self._places.setdefault((fault.field, fault.message, fault.remedy), []).append(raw.place)

    def raise_if_any(self) -> None:
        reasons = [
            Reason(field=field, value=places_of(places), message=message, remedy=remedy)
            for (field, message, remedy), places in self._places.items()
        ]
        if reasons:
            raise UserFault(*reasons[:_REASONS_AT_MOST])


def places_of(places: Sequence[str]) -> str:
    """Return the first positions, and the number of further ones."""
    more = f" and {len(places) - _PLACES_AT_MOST} more" if len(places) > _PLACES_AT_MOST else ""
    return ", ".join(places[:_PLACES_AT_MOST]) + more


def _refuse_empty(rows: Rows, settings: DatasetSettings) -> None:
    wanted: dict[Split, str | None] = {"train": settings.split.train, "test": settings.split.test}
    wanted |= {split: getattr(settings.split, split) for split in rows}
    reasons = [
        Reason(
            field=f"dataset.split.{split}",
            value=shown(name),
            message=f"split {split} of {settings.reference} has no rows",
            remedy="add rows" if split == "train" else "add rows, or set the split to null",
        )
        for split, name in wanted.items()
        if name is not None and not rows.get(split)
    ]
    if reasons:
        raise UserFault(*reasons)


def _refuse_duplicates(rows: Rows) -> None:
    """Refuse a prompt with the same answer twice in a split: it would count twice, which is never intended."""
    found: list[str] = []
    for placed in rows.values():
        first: dict[tuple[str, str], str] = {}
        for place, row in placed:
            earlier = first.setdefault((prompt_key(row), row.completion), place)
            if earlier != place:
                found.append(f"{place} repeats {earlier}")
    if found:
        message = f"{len(found)} rows repeat prompt and answer of an earlier row of the same split"
        raise UserFault(
            Reason(field="dataset.reference", value=places_of(found), message=message, remedy="remove the repetitions")
        )


def _count_tokens(context: Context, rows: Rows, chat: Chat, max_length: int) -> dict[str, float]:
    """Supervised tokens per split. Raises UserFault if a row has none within `max_length`, or is not a valid chat."""
    total, done, cut, longest = sum(map(len, rows.values())), 0, 0, 0
    supervised: Counter[str] = Counter()
    faults = _Faults()
    for split, placed in rows.items():
        for batch in _batches(placed):
            if context.stopping:
                raise Stopping
            for place, tokens in _encoded(batch, chat, faults):
                kept = tokens.cut(max_length).supervised
                supervised[f"supervised_tokens_{split}"] += kept
                cut += len(tokens) > max_length
                longest = max(longest, len(tokens))
                if not kept:
                    message = (
                        f"no token of the answer is within max_length ({max_length} tokens), because the prompt fills it"
                    )
                    remedy = "raise training.max_length, shorten the prompt or remove the row"
                    faults.note(RawRow(place, {}), RowFault("training.max_length", message, remedy))
            done += len(batch)
            context.progress(done, total, "rows")
    faults.raise_if_any()
    return {**supervised, "rows_cut": float(cut), "tokens_longest_row": float(longest)}


def _encoded(batch: Sequence[tuple[str, Row]], chat: Chat, faults: _Faults) -> Iterator[tuple[str, Tokens]]:
    try:
        encoded = chat.encode([row for _, row in batch])
    except ChatFault as fault:
        if len(batch) > 1:
            for placed in batch:
                yield from _encoded([placed], chat, faults)
        else:
            remedy = "correct the turns of the row, or name another base model"
            faults.note(RawRow(batch[0][0], {}), RowFault("dataset.columns", str(fault), remedy))
        return
    yield from zip((place for place, _ in batch), encoded, strict=True)


def _batches(placed: Sequence[tuple[str, Row]]) -> Iterable[Sequence[tuple[str, Row]]]:
    return (placed[start : start + _BATCH] for start in range(0, len(placed), _BATCH))


def _metrics(rows: Rows) -> dict[str, float]:
    """Return the rows per split, and how many held-out prompts occur in the training split, since those only measure
    memorisation."""
    learnt = {prompt_key(row) for _, row in rows["train"]}
    counts = {f"rows_{split}": float(len(placed)) for split, placed in rows.items()}
    seen = sum(prompt_key(row) in learnt for _, row in rows.get("test", ()))
    return {**counts, "rows_test_seen_in_train": float(seen)}
