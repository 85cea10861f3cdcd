"""Step `compare`: judges which of two answers to each prompt is better, such as those of two versions of a deployment."""

from schemas.jobs import StepResult
from schemas.lines import AnswerPair, ComparedPair
from schemas.reasons import Reason
from schemas.results import COMPARISONS, RUBRIC_SHA256
from schemas.steps import CompareSettings
from services.chassis.executor.child import Context, UserFault
from services.chassis.storage.artifacts.pairs import pairs_store
from services.chassis.storage.json_lines import read_lines
from services.feedback.comparing import compare_pairs
from services.feedback.judges.choose import choose_judge
from services.feedback.steps.artifact import registered, ticking, written


def compare(context: Context) -> StepResult:
    """Compare the answers. Raises UserFault for pairs that lie elsewhere: a request may not name any file that this service can read."""
    task = context.task
    if not isinstance(task.settings, CompareSettings):
        raise TypeError(f"a step of kind compare needs CompareSettings, not {type(task.settings).__name__}")
    settings, ref = task.settings.feedback, task.settings.comparison.pairs
    store = pairs_store(context.store.uri)
    if not store.is_own(ref):
        message = "the answers do not lie in the store of this installation"
        remedy = "give the registry and the feedback service the same NEUROWEAVER_ARTIFACTS_URI"
        raise UserFault(Reason(field="comparison.pairs.uri", value=ref.uri, message=message, remedy=remedy))
    pairs = read_lines(store.fetch(ref, task.cache) / AnswerPair.FILE, AnswerPair)
    chosen = choose_judge(settings, task.settings.base_model, task, registered(context, settings.judge))
    compared = compare_pairs(pairs, chosen.judge, settings, ticking(context, "judgements"))
    artifact = written(context.store, compared.report, {ComparedPair.FILE: compared.lines})
    facts = {**chosen.facts, RUBRIC_SHA256: settings.rubric.sha256}
    return StepResult(outputs={COMPARISONS: artifact}, metrics=compared.report.metrics, facts=facts)
