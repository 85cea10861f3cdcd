"""Step `prepare`: reads the data set, validates it row by row and stores it, and checks the base model."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Set as AbstractSet
from pathlib import Path

from schemas.jobs import StepResult
from schemas.lines import SPLITS, row_digests, row_digests_file, split_file
from schemas.reasons import shortened
from schemas.results import (
    BASE_MODEL_SHA256,
    CHAT_TEMPLATE_SHA256,
    DATASET,
    DATASET_LAYOUT,
    DATASET_NOTES,
    DATASET_SHA256,
    PREFERENCES,
    ROW_INDEX,
    TEACHER_SHA256,
)
from schemas.steps import PrepareSettings
from services.chassis.executor.child import Context, Stopping
from services.chassis.storage.artifacts.erased import Erasures
from services.chassis.storage.artifacts.erasing import erased_ids
from services.chassis.storage.digests import file_sha256
from services.trainer.data.layouts import Learns, RowReading
from services.trainer.data.prepared import prepare_rows
from services.trainer.data.sources import Source, read
from services.trainer.data.stored import read_stored
from services.trainer.harness.generated import Generated
from services.trainer.harness.stored import store_tasks
from services.trainer.judging.judges import judges_of
from services.trainer.modelling.sharded import refuse_unshareable
from services.trainer.modelling.teacher import checked_teacher, teacher_digest, teacher_folder
from services.trainer.steps.base_check import checked_base
from services.trainer.steps.loading import fetched, model_files
from services.trainer.steps.made_needs import judge_here
from services.trainer.steps.memory import available
from services.trainer.steps.needs import LoadedModels, RowSizes, checked_needs
from services.trainer.steps.prompt_check import PromptCheck, online_of
from services.trainer.steps.snapshot import facts_for_the_registry, index_rows, snapshot_digest

_NOTES_LIMIT = 2000
_LOG = logging.getLogger(__name__)


class ErasedMeanwhile(RuntimeError):
    """Rows were erased while the step read them. It is no fault of the job: the next attempt leaves them out."""


def prepare(context: Context) -> StepResult:
    """Make the `dataset` artifact. Raises UserFault with every kind of fault found, each with its rows and remedy."""
    settings = context.task.settings
    if not isinstance(settings, PrepareSettings):
        raise TypeError(f"settings of kind {settings.kind} do not prepare")
    base, digest, adapter = model_files(context, settings.base_model)
    checked = checked_base(base, settings, adapter)
    for section, method in settings.methods.items():
        refuse_unshareable(section, method, checked.architecture, adapter, context.task.shards)
    for section, online in online_of(settings).items():
        judges_of(context, online.rewards, section, probe=True)
    chat = checked.chat
    dataset, prompts = settings.dataset, PromptCheck(settings)
    learnt = settings.learns != "answers" or settings.training is not None or not online_of(settings)
    facts = {BASE_MODEL_SHA256: digest, CHAT_TEMPLATE_SHA256: chat.template_sha256}
    teacher = None
    if settings.distill is not None:
        found = teacher_folder(settings.distill, context)
        teacher = checked_teacher(settings.distill, found, checked.architecture, chat.tokenizer)
        facts[TEACHER_SHA256] = teacher_digest(found, context)
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as second:
        folder, preferences = Path(name), Path(second)
        generated = Generated()
        if settings.harness is not None:
            generated = store_tasks(context, settings.harness, chat, checked.context_length, folder)
        source, reading, reference = _source(context, settings, settings.learns if learnt else "prompts")
        erased = Erasures(context.task.artifacts).rows()

        def watch(done: int, of: int) -> None:
            if context.stopping:
                raise Stopping
            context.progress(done, of, "rows")

        made = prepare_rows(
            source, dataset, settings.learns if learnt else "prompts", chat, settings.max_length, folder, preferences, watch,
            turns=settings.assistant_turns if settings.learns == "answers" else "last", learnt=learnt, check=prompts,
            reading=reading, erased=erased, erased_before=_erased_before(context),
        )  # fmt: skip
        prompts.refuse()
        longest = min(settings.max_length, int(made.metrics["tokens_longest_row"]))
        sizes = RowSizes(longest, min(longest, made.most_supervised), generated)
        judge = None
        if settings.judged is not None:
            judge = judge_here(settings.judged.feedback.judge, checked.architecture, context.task)
        models = LoadedModels(checked.architecture, teacher, judge)
        needs = checked_needs(models, settings, sizes, available(context.task.memory_bytes), context.task.shards)
        notes = [*made.notes, *prompts.notes()]
        metrics = {**made.metrics, **prompts.metrics()}
        digests = {split: file_sha256(folder / split_file(split)) for split in made.splits}
        facts[DATASET_SHA256] = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        facts[DATASET_LAYOUT] = made.reading.words
        if notes:
            facts[DATASET_NOTES] = shortened("; ".join(notes), _NOTES_LIMIT)
        described = {
            "reference": reference, "sha256": digests, **facts, "max_length": settings.max_length,
            "context_length": checked.context_length, "notes": notes, **metrics,
        }  # fmt: skip
        facts = facts_for_the_registry(dataset, snapshot_digest(folder, preferences), context.task.requester) | facts
        _refuse_erased_meanwhile(context, erased, folder)
        (folder / "dataset.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        outputs = {DATASET: context.store.put(folder)}
        with tempfile.TemporaryDirectory() as third:
            index_rows(folder, Path(third))
            outputs[ROW_INDEX] = context.store.put(Path(third))
        if settings.learns != "answers":
            outputs[PREFERENCES] = context.store.put(preferences)
    for note in (made.reading.words, *notes):
        _LOG.info("%s", note)
    return StepResult(outputs=outputs, metrics=metrics, facts=facts, needs=dict(needs))


def _erased_before(context: Context) -> int:
    """Return how many rows were erased from the registered data set that the job names."""
    return len(erased_ids(fetched(context, DATASET))) if DATASET in context.task.inputs else 0


def _refuse_erased_meanwhile(context: Context, known: AbstractSet[str], folder: Path) -> None:
    """Raise ErasedMeanwhile if rows that are about to be stored were erased after reading began."""
    if not (later := Erasures(context.task.artifacts).rows() - known):
        return
    files = [folder / row_digests_file(split) for split in SPLITS]
    kept = sum(digest in later for file in files if file.is_file() for digest, _ in row_digests(file))
    if kept:
        raise ErasedMeanwhile(f"{kept} rows were erased while they were read; the next attempt leaves them out")


def _source(context: Context, settings: PrepareSettings, learns: Learns) -> tuple[Source, RowReading | None, str]:
    """Return the rows that the job names, or those of the registered data set that it names, with how they were read and from where."""
    if DATASET not in context.task.inputs:
        return read(settings.dataset, context.task.cache, context.task.allowed), None, settings.dataset.reference
    preferences = fetched(context, PREFERENCES) if PREFERENCES in context.task.inputs else None
    return read_stored(settings.dataset, learns, fetched(context, DATASET), preferences)
