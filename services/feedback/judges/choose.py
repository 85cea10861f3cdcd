"""Creates the judge that a request names, or raises a fault that names the setting. Imports torch and openai lazily."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from schemas.reasons import Reason, shown
from schemas.recipes.feedback import ADD_RULES, NO_RULE, FeedbackSettings, JudgeSettings, Rubric, lacks_rules
from schemas.results import JUDGE, JUDGE_MODEL_SHA256
from services.chassis.executor.child import UserFault
from services.chassis.storage.references import ReferenceFault, folder_digest, require_inside, resolve, resolve_model
from services.chassis.storage.sources.allowed import AllowedSources
from services.feedback.judges.answer_cache import AnswerCache
from services.feedback.judges.judge import Judge
from services.feedback.judges.registered import FetchedJudge
from services.feedback.judges.rules import RulesJudge

if TYPE_CHECKING:
    from services.feedback.judges.reward import RewardRecord

_REWARD_MODEL = "feedback.judge.reward_model"


class JudgeContext(Protocol):
    """Where a judge works: in a step of a job, or for another service."""

    @property
    def cache(self) -> Path:
        """Folder for files that can be downloaded again."""

    @property
    def allowed(self) -> AllowedSources:
        """What the job may name."""

    @property
    def memory_failures(self) -> int:
        """Number of earlier attempts that ran out of memory."""

    @property
    def checkpoints(self) -> Path | None:
        """Root of what runs of this step have kept; None: nothing is kept."""

    @property
    def own_checkpoints(self) -> Path | None:
        """The folder that only this run writes to; None: nothing is kept."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A judge that is ready to use."""

    judge: Judge
    facts: Mapping[str, str]
    """The facts about the judge that the step's result reports."""


def choose_judge(
    feedback: FeedbackSettings, base_model: str, place: JudgeContext, version: FetchedJudge | None = None
) -> Chosen:
    """Create the judge that `feedback` names. `version`: the registered version if its reward model is one. Raises UserFault."""
    if feedback.judge.reward_model is not None:
        return _reward(feedback.judge.reward_model, version, feedback.judge.batch_size, place)
    match feedback.judge.kind:
        case "rules":
            if lacks_rules(feedback.judge, feedback.rubric):
                raise _fault("feedback.rubric.rules", "[]", NO_RULE, ADD_RULES)
            return _chosen(RulesJudge(feedback.rubric.rules))
        case "openai":
            return _chosen(_endpoint(feedback.judge, feedback.rubric, place))
        case "local":
            return _local(feedback.judge, feedback.rubric, base_model, place)


def _chosen(judge: Judge, **facts: str) -> Chosen:
    return Chosen(judge, {JUDGE: judge.name, **facts})


def _endpoint(settings: JudgeSettings, rubric: Rubric, place: JudgeContext) -> Judge:
    try:
        from services.feedback.judges.openai import OpenAIJudge
    except ImportError as error:
        raise _fault(
            "feedback.judge.kind", settings.kind, "the feedback service lacks a package for judges at an endpoint: "
                f"{error}",
            'install it with pip install "neuroweaver[feedback]", or choose the judge local or rules',
        ) from error  # fmt: skip
    return OpenAIJudge(settings, rubric, place.allowed, partial(AnswerCache, place.checkpoints, place.own_checkpoints))


def _local(settings: JudgeSettings, rubric: Rubric, base_model: str, place: JudgeContext) -> Chosen:
    reference = settings.model or base_model
    field = "feedback.judge.model" if settings.model else "base_model"
    try:
        folder = resolve_model(reference, place.cache, place.allowed)
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
        model = LocalModel(folder, max(1, settings.batch_size >> place.memory_failures))
        judge = LikelihoodJudge if settings.scoring == "likelihood" else QuestionJudge
        return _chosen(judge(name, model, rubric), **{JUDGE_MODEL_SHA256: folder_digest(folder, place.cache)})
    except ModelUnfit as unfit:
        raise _fault(field, reference, str(unfit), "name a causal language model in the format of transformers") from unfit


def _reward(reference: str, version: FetchedJudge | None, batch_size: int, place: JudgeContext) -> Chosen:
    try:
        from services.feedback.judges.reward import RewardJudge, Unscorable, record_of
    except ImportError as error:
        raise _fault(
            _REWARD_MODEL, reference, f"the feedback service cannot run a reward model: {error}",
            'install it with pip install "neuroweaver[local-judge]", or choose another judge',
        ) from error  # fmt: skip
    try:
        folder = version.adapter if version else _reward_folder(reference, place)
        record = record_of(folder)
        base = _base_of(record, reference, version, place)
        name = f"reward:{version.id if version else Path(reference.rstrip('/')).name}"
        judge = RewardJudge(name, base, folder, max(1, batch_size >> place.memory_failures))
    except ReferenceFault as fault:
        raise _fault(_REWARD_MODEL, reference, fault.reason, fault.remedy) from fault
    except Unscorable as unfit:
        raise _fault(_REWARD_MODEL, reference, str(unfit), "name the output of a train step of method reward") from unfit
    return _chosen(judge, **{JUDGE_MODEL_SHA256: version.sha256 if version else folder_digest(folder, place.cache)})


def _reward_folder(reference: str, place: JudgeContext) -> Path:
    folder = resolve(reference, place.cache, place.allowed)
    if not folder.is_dir():
        raise ReferenceFault("this is a file", "name the folder of the reward model")
    require_inside(folder, place.cache, place.allowed)
    return folder


def _base_of(record: "RewardRecord", judge: str, version: FetchedJudge | None, place: JudgeContext) -> Path:
    """Return the folder of the base model that a reward model was trained on. Raises UserFault if it is gone or has changed."""
    remedy = "bring back the files that it was trained on, or train the reward model again"
    try:
        base = version.base if version and version.base else resolve_model(record.base_model, place.cache, place.allowed)
    except ReferenceFault as fault:
        what = f"the base model that its training.json names cannot be read: {fault.reason}"
        raise _fault(_REWARD_MODEL, judge, what, fault.remedy) from fault
    digest = version.base_sha256 if version and version.base else folder_digest(base, place.cache)
    if digest != record.base_model_sha256:
        what = "the base model that its training.json names has other files than those that it was trained on"
        raise _fault(_REWARD_MODEL, judge, what, remedy)
    return base


def _fault(field: str, value: str, message: str, remedy: str) -> UserFault:
    return UserFault(Reason(field=field, value=shown(value), message=message, remedy=remedy))
