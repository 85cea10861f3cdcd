"""Measures a model on the stored tasks: the harness asks and counts, and every metric gets its interval and protocol."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.lines import TaskSample
from schemas.metrics import HARNESS
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.harness import HarnessSettings
from services.chassis.executor.child import Context
from services.chassis.storage.json_lines import json_line
from services.language_models.chat_format.chat import Chat
from services.trainer.harness.library import harness_version
from services.trainer.harness.samples import shown_samples
from services.trainer.harness.stored import FOLDER, StoredTask, stored_tasks
from services.trainer.steps.intervals import Interval, interval, interval_of


@dataclass
class HarnessResults:
    """What was measured, by the names of metrics and facts."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Contents of files for the artifact, by name: the protocol of all tasks, and every row of each."""
    samples: list[TaskSample] = field(default_factory=list)
    """The first rows of each task, for the report."""

    def write(self, folder: Path) -> None:
        """Write the files below `folder`."""
        if self.samples:
            (folder / TaskSample.FILE).write_text("".join(map(json_line, self.samples)), encoding="utf-8")
        for name, text in self.files.items():
            (folder / FOLDER).mkdir(exist_ok=True)
            (folder / FOLDER / name).write_text(text, encoding="utf-8")


def measured(context: Context, dataset: Path, chat: Chat, model: Any, evaluation: EvaluationSettings) -> HarnessResults:
    """Measure every task of the settings. Raises Stopping between two tokens or batches."""
    found, settings = HarnessResults(), evaluation.harness
    if settings is None:
        return found
    protocols = {}
    for task in stored_tasks(dataset, settings):
        protocols[str(task.config["task"])] = _measure(context, task, chat, model, evaluation, settings, found)
    found.files["protocol.json"] = json.dumps(protocols, indent=2, sort_keys=True, default=str) + "\n"
    return found


def _measure(
    context: Context,
    stored: StoredTask,
    chat: Chat,
    model: Any,
    evaluation: EvaluationSettings,
    settings: HarnessSettings,
    found: HarnessResults,
) -> Mapping[str, object]:
    """Add one task to what was found; return its protocol."""
    from services.trainer.harness.model import ServedModel
    from services.trainer.harness.tasks import built, run

    task = built(stored.config, stored.splits, settings)
    name, shots = task.task_name, int(task.config.num_fewshot)
    served = ServedModel(context, chat, model, chats=settings.chat, batch_size=evaluation.batch_size, seed=settings.seed)
    result = run(served, task, settings)
    samples = result["samples"][name]
    rows, of = len({sample["doc_id"] for sample in samples}), len(task.eval_docs)
    found.metrics |= _metrics(f"{HARNESS}{name}", result["results"][name], samples, task.aggregation(), settings.seed)
    counts = {"rows": rows, "num_fewshot": shots, "prompts_cut": len(served.cut[name])}
    found.metrics |= {f"{HARNESS}{name}_{what}": float(count) for what, count in counts.items()}
    found.facts[f"{HARNESS}{name}"] = (
        f"task file sha256 {stored.sha256}, version {task.VERSION}; {rows} of {of} rows, {shots} examples each; prompts as "
        f"{'chats' if settings.chat else 'plain texts'}, seed {settings.seed}; lm-evaluation-harness {harness_version()}"
    )
    found.samples += shown_samples(name, samples)
    found.files[f"{name}.jsonl"] = "".join(json.dumps(sample, default=str) + "\n" for sample in samples)
    return {
        "version": task.VERSION, "task_sha256": stored.sha256, "data_sha256": dict(stored.data), "rows": rows, "rows_of_task": of,
        "num_fewshot": shots, "prompts_cut": counts["prompts_cut"], "chat": settings.chat, "seed": settings.seed,
        "higher_is_better": dict(task.higher_is_better()), "lm_eval": harness_version(),
    }  # fmt: skip


def _metrics(
    prefix: str,
    values: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    aggregations: Mapping[str, Callable[[Sequence[Any]], float]],
    seed: int,
) -> dict[str, float | None]:
    """Return each metric of a task with its interval. The harness names them `metric,filter`; the usual filter is none."""
    metrics: dict[str, float | None] = {}
    for key, value in values.items():
        metric, behind, answers = key.partition(",")
        if not behind or metric.endswith("_stderr"):
            continue
        name = f"{prefix}_{metric}" + ("" if answers == "none" else f"_{answers}")
        of_rows = [sample[metric] for sample in samples if sample["filter"] == answers and metric in sample["metrics"]]
        bounds = _interval(aggregations.get(metric), of_rows, seed)
        metrics[name] = float(value) if math.isfinite(value) else None
        metrics[f"{name}_low"], metrics[f"{name}_high"] = (bounds.low, bounds.high) if bounds else (None, None)
    return metrics


def _interval(aggregate: Callable[[Sequence[Any]], float] | None, of_rows: Sequence[Any], seed: int) -> Interval | None:
    """Return the interval of a metric that the harness aggregates by the mean, unless the task says otherwise."""
    from lm_eval.api.metrics import mean as harness_mean

    if aggregate is None or aggregate is harness_mean:
        return interval([float(value) for value in of_rows], seed=seed)
    return interval_of(aggregate, of_rows, seed=seed)
