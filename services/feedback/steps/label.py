"""Step `label`: turns candidates into preference pairs, and records their quality as an event of the job."""

from schemas.jobs import FeedbackRecorded, StepResult
from schemas.lines import Candidates, Label, Preference
from schemas.results import CANDIDATES, PREFERENCES
from schemas.steps import LabelSettings
from services.chassis.executor.child import Context, UserFault
from services.chassis.storage.json_lines import read_lines
from services.feedback.groups import group
from services.feedback.judges.choose import choose_judge
from services.feedback.labelling import label_groups, labels, preferences
from services.feedback.report import LabelReport, label_report, without_pairs
from services.feedback.steps.artifact import registered, ticking, written


def label(context: Context) -> tuple[StepResult, list[FeedbackRecorded]]:
    """Label the candidates. Raises UserFault if there is no pair, since nothing could be trained on the result."""
    task = context.task
    if not isinstance(task.settings, LabelSettings):
        raise TypeError(f"a step of kind label needs LabelSettings, not {type(task.settings).__name__}")
    settings = task.settings.feedback
    rows = read_lines(context.store.fetch(task.inputs[CANDIDATES], task.cache) / Candidates.FILE, Candidates)
    groups = [group(row, settings.judged_field, settings.equal_fields) for row in rows]
    chosen = choose_judge(settings, task.settings.base_model, task, registered(context, settings.judge))
    labelled = label_groups(groups, chosen.judge, settings, ticking(context, "judgements"))
    report = label_report(chosen.judge.name, settings, labelled)
    if not report.pairs:
        raise UserFault(without_pairs(report, labelled))
    pairs = [pair for one in labelled for pair in preferences(one, settings.equal_fields)]
    lines = [line for one in labelled for line in labels(one)]
    artifact = written(context.store, report, {Preference.FILE: pairs, Label.FILE: lines})
    recorded = _recorded(context, report)
    metrics = {
        "pairs": float(recorded.pairs),
        "ties": float(recorded.ties),
        "invalid": float(recorded.invalid),
        "cut": float(report.cut),
        "agreement": recorded.agreement,
        "position_consistency": recorded.position_consistency,
        "longer_preferred": recorded.longer_preferred,
    }
    result = StepResult(outputs={PREFERENCES: artifact}, metrics=metrics, facts=dict(chosen.facts))
    return result, [recorded]


def _recorded(context: Context, report: LabelReport) -> FeedbackRecorded:
    task = context.task
    return FeedbackRecorded(
        job_id=task.job_id,
        step=task.step,
        attempt=task.attempt,
        kind=task.kind,
        judge=report.judge,
        candidates=report.candidates,
        comparisons=report.comparisons,
        pairs=report.pairs,
        ties=report.ties.below_margin + report.ties.inconsistent,
        invalid=report.unread + report.comparisons_unjudged,
        agreement=report.rules.share if report.rules else None,
        position_consistency=report.position.consistency if report.position else None,
        longer_preferred=report.length.longer_preferred,
    )
