"""Decides which values of a task file are followed; what is unknown here is refused, since it could be anything."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from schemas.base import NAME_PATTERN
from services.chassis.storage.sources.allowed import Refusal

OUTPUT_TYPES = ("multiple_choice", "generate_until", "loglikelihood", "loglikelihood_rolling")
GENERATION = {"until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature", "top_p"}
IGNORED = {
    "tag",
    "group",
    "task_list",
    "task_alias",
    "include",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "unsafe_code",
}
"""Keys that say nothing about how a task is measured, or whose only allowed value is their default."""
READ_HERE = {"dataset_path", "dataset_name", "dataset_kwargs"}
"""Keys that name the data, which the harness does not read itself."""
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
_TEMPLATES = {"doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix", "target_delimiter", "fewshot_delimiter"}
_FEWSHOT = {"sampler", "split", "samples", "fewshot_indices", *_TEMPLATES}
FOLLOWED = {
    "task", "output_type", "description", "num_fewshot", "fewshot_config", "metric_list", "generation_kwargs", "repeats",
    "filter_list", "metadata", *SPLITS, *_TEMPLATES,
}  # fmt: skip
_CODE = ("class", "custom_dataset", "process_docs", "process_results", "use_prompt")
_MEDIA = ("doc_to_image", "doc_to_audio")


def refusal_of(config: Mapping[str, Any]) -> Refusal | None:
    """Return why a task is not measured, and the remedy; None if it is. No value of the file is repeated."""
    return next(_refusals(config), None)


def _refusals(config: Mapping[str, Any]) -> Iterator[Refusal]:
    if "group" in config or isinstance(config.get("task"), list):
        yield Refusal("it describes a group of tasks", "name its tasks")
    if not isinstance(config.get("task"), str) or not re.fullmatch(NAME_PATTERN, config["task"]):
        yield Refusal("it has no name (task) of letters, digits, dots, hyphens and underscores", "correct its task")
    for name in _CODE:
        if name in config:
            yield Refusal(f"its {name} is Python code, which is never run", "name a task that needs none")
    if config.get("unsafe_code"):
        yield Refusal("it runs what the model writes (unsafe_code), which is never done", "name another task")
    if any(name in config for name in _MEDIA):
        yield Refusal("it has images or sounds", "name a task of texts")
    if config.get("output_type", "generate_until") not in OUTPUT_TYPES:
        yield Refusal("its output_type is unknown", f"use one of {', '.join(OUTPUT_TYPES)}")
    yield from _unknown("", config, FOLLOWED | IGNORED | READ_HERE)
    yield from _of_data(config)
    yield from _of_parts(config)


def _of_data(config: Mapping[str, Any]) -> Iterator[Refusal]:
    given = config.get("dataset_kwargs") or {}
    if not isinstance(given, Mapping):
        yield Refusal("its dataset_kwargs are no mapping", "correct them")
        return
    if given.get("trust_remote_code"):
        yield Refusal("code of a data set is never run (trust_remote_code)", "name a data set of plain files")
    yield from _unknown("dataset_kwargs", given, {"data_files", "revision", "trust_remote_code"})
    if not isinstance(config.get("dataset_path"), str):
        yield Refusal("it names no data set (dataset_path)", "add it")
    if not any(isinstance(config.get(name), str) for name in ("validation_split", "test_split")):
        yield Refusal("it names neither a test_split nor a validation_split", "add one")


def _of_parts(config: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from _unknown("generation_kwargs", config.get("generation_kwargs") or {}, GENERATION)
    yield from _unknown("fewshot_config", config.get("fewshot_config") or {}, _FEWSHOT)
    for metric in config.get("metric_list") or ():
        if not isinstance(metric, Mapping) or metric.get("hf_evaluate") or metric.get("metric") == "bypass":
            yield Refusal("a metric in it is code of the hub, or none", "use metrics of the harness")
    for steps in config.get("filter_list") or ():
        names = [step.get("function") for step in steps.get("filter") or ()] if isinstance(steps, Mapping) else [None]
        if not names or "custom" in names or not all(isinstance(name, str) for name in names):
            yield Refusal("a filter in it is Python code, or none", "use filters of the harness")


def _unknown(where: str, given: object, known: set[str]) -> Iterator[Refusal]:
    if not isinstance(given, Mapping):
        yield Refusal(f"its {where} are no mapping", "correct them")
    elif strange := sum(name not in known for name in given):
        inside = f" in {where}" if where else ""
        yield Refusal(f"{strange} of its settings{inside} are not supported", f"use {', '.join(sorted(known - IGNORED))}")
