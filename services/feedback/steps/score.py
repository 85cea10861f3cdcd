"""Step `score`: turns predictions into the judge's mean score."""

from schemas.jobs import StepResult
from schemas.lines import Prediction, RowScores
from schemas.results import PREDICTIONS, SCORES
from schemas.steps import ScoreSettings
from services.chassis.executor.child import Context
from services.chassis.storage.json_lines import read_lines
from services.feedback.judges.choose import choose_judge
from services.feedback.scoring import score_predictions
from services.feedback.steps.artifact import registered, ticking, written


def score(context: Context) -> StepResult:
    """Score the predictions.

    If no answer of a model can be read, that is no fault: its score is null, and the counts say why.
    """
    task = context.task
    if not isinstance(task.settings, ScoreSettings):
        raise TypeError(f"a step of kind score needs ScoreSettings, not {type(task.settings).__name__}")
    settings = task.settings.feedback
    rows = read_lines(context.store.fetch(task.inputs[PREDICTIONS], task.cache) / Prediction.FILE, Prediction)
    chosen = choose_judge(settings, task.settings.base_model, task, registered(context, settings.judge))
    scored = score_predictions(rows, chosen.judge, settings, ticking(context, "answers"))
    artifact = written(context.store, scored.report, {RowScores.FILE: scored.lines})
    return StepResult(outputs={SCORES: artifact}, metrics=scored.report.metrics, facts=dict(chosen.facts))
