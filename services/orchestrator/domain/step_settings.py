"""Gives each planned step its settings: the parts of the request that its kind and method read."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal

from schemas.recipes.methods import section_of
from schemas.recipes.sampled import SampledSettings
from schemas.requests import JobRequest, PipelineStep
from schemas.steps import (
    AnswersAtOnce,
    CompareSettings,
    CompressSettings,
    EvaluateSettings,
    ImportSettings,
    JudgedAtOnce,
    LabelSettings,
    PrepareSettings,
    RegisterSettings,
    ResolveSettings,
    SampleSettings,
    ScoreSettings,
    StepSettings,
    TrainSettings,
)
from services.orchestrator.domain.whole_models import compression_settings

LEARNT_FROM: Mapping[str, Literal["pairs", "labels"]] = {"dpo": "pairs", "reward": "pairs", "kto": "labels"}
"""What the methods learn from that take the preferences of a data set."""


def sections_of(methods: Iterable[str], request: JobRequest) -> dict[str, Any]:
    """Return the settings of training methods, by the section that they have in a request and in the settings of steps."""
    return {section: getattr(request, section) for section in map(section_of, methods)}


def settings_of(step: PipelineStep, request: JobRequest, steps: Iterable[PipelineStep]) -> StepSettings:
    """Return the settings of `step`, one of `steps`."""
    base, template = request.base_model, request.chat_template
    match step.kind, step.trained_by:
        case "prepare", _:
            return _prepare(step, request, steps)
        case "train", str(method):
            return TrainSettings(base_model=base, chat_template=template, **sections_of([method], request))
        case "sample", _:
            return SampleSettings(base_model=base, chat_template=template, sampling=request.sampling)
        case "label", _:
            return LabelSettings(base_model=base, feedback=request.feedback)
        case "evaluate", _:
            return EvaluateSettings(base_model=base, chat_template=template, evaluation=request.evaluation)
        case "compress", _:
            compression = compression_settings(step, request)
            return CompressSettings(base_model=base, chat_template=template, compression=compression)
        case "import", _:
            return ImportSettings(base_model=base, source=request.import_from or base)
        case "score", _:
            return ScoreSettings(base_model=base, feedback=request.feedback)
        case "compare", _:
            assert request.comparison is not None, "planning refuses it"
            return CompareSettings(base_model=base, comparison=request.comparison, feedback=request.feedback)
        case "register", _:
            return RegisterSettings(
                base_model=base, model=request.register_as, alias=request.alias, version=request.register_version
            )
        case "resolve", _:
            return ResolveSettings(base_model=base)
    raise AssertionError(f"no settings for kind {step.kind}: PipelineStep refuses unknown kinds")


def _prepare(step: PipelineStep, request: JobRequest, steps: Iterable[PipelineStep]) -> PrepareSettings:
    """Return the settings of a step of kind prepare: what later steps learn from its rows, and up to which length."""
    learners = learners_of(step.name, steps)
    sections = sections_of({one.trained_by for one in steps if one.trained_by}, request)
    sampled = [settings for settings in sections.values() if isinstance(settings, SampledSettings)]
    lengths = [settings.max_length for settings in (*sections_of(learners, request).values(), *sampled)]
    if not lengths or "training" in sections:
        lengths.append(request.training.max_length)
    return PrepareSettings(
        base_model=request.base_model,
        chat_template=request.chat_template,
        dataset=request.dataset,
        compressions=tuple(compression_settings(one, request) for one in steps if one.kind == "compress"),
        max_length=min(lengths),
        assistant_turns="last" if sampled and len(sampled) == len(sections) else request.training.assistant_turns,
        learns=LEARNT_FROM[learners[0]] if learners else "answers",
        answers=_answers(request, {one.kind for one in steps}),
        judged=_judged(request, {one.kind for one in steps}),
        harness=request.evaluation.harness if any(one.kind == "evaluate" for one in steps) else None,
        **sections,
    )


def _answers(request: JobRequest, kinds: AbstractSet[str]) -> AnswersAtOnce | None:
    """Return the most that a step of these kinds generates at once; None if none generates answers."""
    sampling, evaluation = request.sampling, request.evaluation
    found = list[tuple[int, int, int]]()
    if "sample" in kinds:
        found.append((sampling.batch_size, sampling.n, sampling.max_new_tokens))
    if "evaluate" in kinds:
        found.append((evaluation.batch_size, 1 + evaluation.samples, evaluation.max_new_tokens))
    if not found:
        return None
    prompts, answers, tokens = map(max, zip(*found, strict=True))
    precision = "fp32" if "evaluate" in kinds and evaluation.precision == "fp32" else "auto"
    return AnswersAtOnce(prompts=prompts, answers=answers, tokens=tokens, precision=precision)


def _judged(request: JobRequest, kinds: AbstractSet[str]) -> JudgedAtOnce | None:
    """Return the most that a judge of steps of these kinds reads at once; None if none judges with a model of this system."""
    lengths = []
    if "label" in kinds:
        lengths.append(request.sampling.max_new_tokens)
    if "score" in kinds:
        lengths.append(request.evaluation.max_new_tokens)
    if not lengths or request.feedback.judge.kind != "local":
        return None
    return JudgedAtOnce(feedback=request.feedback, answers=2 if "label" in kinds else 1, tokens=max(lengths))


def learners_of(prepare: str, steps: Iterable[PipelineStep]) -> tuple[str, ...]:
    """Return the methods that learn from the preferences of a step of kind prepare."""
    binding = f"{prepare}.preferences"
    return tuple(step.trained_by for step in steps if step.trained_by and step.inputs.get("preferences") == binding)
