"""Creates the judge that a request names, or raises a fault that names the setting. Imports torch and openai lazily."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from schemas.reasons import Reason, shown
from schemas.recipes.feedback import FeedbackSettings, JudgeSettings, Rubric
from schemas.results import JUDGE, JUDGE_MODEL_SHA256
from services.chassis.executor.child import ChildTask, UserFault
from services.chassis.storage.references import ReferenceFault, folder_digest, resolve_model
from services.feedback.judges.answer_cache import AnswerCache
from services.feedback.judges.judge import Judge
from services.feedback.judges.rules import RulesJudge


@dataclass(frozen=True, slots=True)
class Chosen:
    """A judge that is ready to use."""

    judge: Judge
    facts: Mapping[str, str]
    """The facts about the judge that the step's result reports."""


def choose_judge(feedback: FeedbackSettings, base_model: str, task: ChildTask) -> Chosen:
    """Create the judge that `feedback` names. Raises UserFault."""
    match feedback.judge.kind:
        case "rules":
            return _chosen(_rules(feedback.rubric))
        case "openai":
            return _chosen(_endpoint(feedback.judge, feedback.rubric, task))
        case "local":
            return _local(feedback.judge, feedback.rubric, base_model, task)


def _chosen(judge: Judge, **facts: str) -> Chosen:
    return Chosen(judge, {JUDGE: judge.name, **facts})


def _rules(rubric: Rubric) -> Judge:
    if not rubric.rules:
        raise _fault("feedback.rubric.rules", "[]", "the `rules` judge has no rule to judge by", "add rules to the rubric")
    return RulesJudge(rubric.rules)


def _endpoint(settings: JudgeSettings, rubric: Rubric, task: ChildTask) -> Judge:
    try:
        from services.feedback.judges.openai import OpenAIJudge
    except ImportError as error:
        raise _fault(
            "feedback.judge.kind", settings.kind, "the feedback service lacks a package for judges at an endpoint: "
                f"{error}",
            'install it with pip install "neuroweaver[feedback]", or choose the judge local or rules',
        ) from error  # fmt: skip
    return OpenAIJudge(settings, rubric, task.allowed, partial(AnswerCache, task.checkpoints, task.own_checkpoints))


def _local(settings: JudgeSettings, rubric: Rubric, base_model: str, task: ChildTask) -> Chosen:
    reference = settings.model or base_model
    field = "feedback.judge.model" if settings.model else "base_model"
    try:
        folder = resolve_model(reference, task.cache, task.allowed)
    except ReferenceFault as fault:
        raise _fault(field, reference, fault.reason, fault.remedy) from fault
    try:
        from services.feedback.judges.local import LikelihoodJudge, LocalModel, ModelUnfit, QuestionJudge
    except ImportError as error:
        raise _fault(
            "feedback.judge.kind", settings.kind, f"the feedback service cannot run a local judge: {error}",
            'install it with pip install "neuroweaver[local-judge]", or choose the judge openai or rules',
        ) from error  # fmt: skip
    name = f"local/{settings.scoring}:{Path(reference.rstrip('/')).name}"
    try:
        model = LocalModel(folder, max(1, settings.batch_size >> task.memory_failures))
        judge = LikelihoodJudge if settings.scoring == "likelihood" else QuestionJudge
        return _chosen(judge(name, model, rubric), **{JUDGE_MODEL_SHA256: folder_digest(folder, task.cache)})
    except ModelUnfit as unfit:
        raise _fault(field, reference, str(unfit), "name a causal language model in the format of transformers") from unfit


def _fault(field: str, value: str, message: str, remedy: str) -> UserFault:
    return UserFault(Reason(field=field, value=shown(value), message=message, remedy=remedy))
