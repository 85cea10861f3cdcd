"""Builds the harness's tasks from stored task files and data."""

import copy
from collections.abc import Mapping
from typing import Any

from schemas.recipes.harness import HarnessSettings
from services.trainer.harness.task_keys import FOLLOWED


def built(config: Mapping[str, Any], splits: Mapping[str, Any], settings: HarnessSettings) -> Any:
    """Return a task as the harness builds it, with the request's number of examples and their seed.

    Raises what the harness and the templates of the task raise for a task that fits neither its data nor the harness.
    """
    from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY
    from lm_eval.api.task import ConfigurableTask

    class Stored(ConfigurableTask):  # type: ignore[misc]
        def download(self, dataset_kwargs: Any = None, **_: Any) -> None:
            self.dataset = splits

    for metric in config.get("metric_list") or ():
        if metric.get("metric") not in METRIC_REGISTRY:
            raise ValueError("the harness has no metric of this name")
        if metric.get("aggregation", "mean") not in AGGREGATION_REGISTRY:
            raise ValueError("the harness has no aggregation of this name")
    task = Stored(config=copy.deepcopy({name: value for name, value in config.items() if name in FOLLOWED}))
    if task.config.num_fewshot is None or (settings.num_fewshot is not None and task.config.num_fewshot != 0):
        task.set_config("num_fewshot", settings.num_fewshot or 0)
    task.set_fewshot_seed(settings.seed)
    return task


def run(model: Any, task: Any, settings: HarnessSettings) -> Mapping[str, Any]:
    """Return the results and samples of a task, as the harness computes them, without its intervals."""
    from lm_eval.evaluator import evaluate

    found: Mapping[str, Any] = evaluate(
        model,
        {"tasks": {task.task_name: task}, "groups": {}, "group_map": {}},
        limit=settings.limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=settings.chat,
        fewshot_as_multiturn=settings.chat,
    )
    return found


def misfit(task: Any) -> str | None:
    """Return why answers to a task cannot be right; None if they can. The harness only logs it, and counts them as wrong."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    for number, doc in enumerate(task.eval_docs, 1):
        choices = task.doc_to_choice(doc)
        given = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        for right in given if isinstance(given, list) else [given]:
            inside = 0 <= right < len(choices) if isinstance(right, int) else right in choices
            if not inside:
                return f"the right answer of row {number} is none of its {len(choices)} choices"
    return None
