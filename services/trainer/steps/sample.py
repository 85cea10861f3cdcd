"""Step `sample`: generates several answers to each of some training prompts, for the feedback service to compare."""

import random
import tempfile
import time
from pathlib import Path

from schemas.jobs import StepResult
from schemas.lines import Candidates, Row
from schemas.results import CANDIDATES, DATASET
from schemas.steps import SampleSettings
from services.chassis.executor.child import Context
from services.chassis.storage.json_lines import write_lines
from services.language_models.generation import SamplingParams, rng
from services.trainer.data.rows import rows_of
from services.trainer.data.splitting import prompt_key
from services.trainer.steps.answering import answers_of
from services.trainer.steps.loading import answering_chat_faults, fetched, load


@answering_chat_faults
def sample(context: Context) -> StepResult:
    """Make the `candidates` artifact. The same seed gives the same prompts and, on the same machine, the same answers."""
    settings = context.task.settings
    if not isinstance(settings, SampleSettings):
        raise TypeError(f"settings of kind {settings.kind} do not sample")
    wanted = settings.sampling
    loaded = load(context, settings.base_model, "auto", settings.chat_template)
    chat, model = loaded.chat, loaded.model()
    rows = chosen(rows_of(fetched(context, DATASET), "train"), wanted.prompts, wanted.seed)
    started, done, tokens = time.monotonic(), 0, 0

    def on_batch(answered: int, made: int) -> None:
        nonlocal done, tokens
        done, tokens = done + answered, tokens + made
        rate = tokens / max(time.monotonic() - started, 1e-9)
        context.progress(done, len(rows), "prompts", tokens_per_second=rate)

    context.progress(0, len(rows), "prompts")
    decoding = SamplingParams(chat.stop_ids, chat.pad_id, wanted.max_new_tokens, wanted.temperature, wanted.top_p)
    answers = answers_of(
        context, model, chat.prompts(rows),
        lambda number: [rng(wanted.seed, number, way) for way in range(wanted.n)],
        decoding, wanted.batch_size, on_batch=on_batch,
    )  # fmt: skip
    candidates = [
        Candidates(
            **dict(row),
            candidates=tuple(chat.text(ids) for ids in made),
            cut=tuple(len(ids) >= wanted.max_new_tokens for ids in made),
        )
        for row, made in zip(rows, answers, strict=True)
    ]
    with tempfile.TemporaryDirectory() as name:
        write_lines(Path(name) / Candidates.FILE, candidates)
        artifact = context.store.put(Path(name))
    cut = sum(sum(row.cut) for row in candidates)
    distinct = sum(len(set(row.candidates)) for row in candidates)
    metrics = {
        "prompts": float(len(rows)), "candidates": float(len(rows) * wanted.n), "distinct": float(distinct),
        "cut": float(cut), "tokens": float(tokens),
    }  # fmt: skip
    return StepResult(outputs={CANDIDATES: artifact}, metrics=metrics)


def chosen(rows: list[Row], count: int, seed: int) -> list[Row]:
    """Return at most `count` rows with different prompts, chosen by the seed, in the order of the data set."""
    distinct: dict[str, Row] = {}
    for row in rows:
        distinct.setdefault(prompt_key(row), row)
    firsts = list(distinct.values())
    numbers = random.Random(seed).sample(range(len(firsts)), min(count, len(firsts)))  # noqa: S311  # no secret
    return [firsts[number] for number in sorted(numbers)]
