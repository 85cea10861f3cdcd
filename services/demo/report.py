"""Computes the numbers of the demo's report; the table, `report.json` and the page all use them."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.base import Frozen
from schemas.jobs import StepResult
from schemas.metrics import paired
from services.demo.deployed import DeploymentFound
from services.demo.observed_job import ObservedJob
from services.demo.recipe import Pipeline

STAGES: Mapping[Pipeline, Mapping[str, tuple[str, str | None]]] = {
    "rlaif": {
        "base": ("evaluate-base", "score-base"),
        "sft": ("evaluate-sft", "score-sft"),
        "rlaif": ("evaluate", "score"),
    },
    "sft": {"base": ("evaluate-base", None), "sft": ("evaluate", None)},
}
"""The steps of a preset that measure each stage of the model: the evaluation, and the judge's scoring if there is one."""

STAGE_TITLES: Mapping[str, str] = {"base": "base", "sft": "after SFT", "rlaif": "after RLAIF"}

TRAINING: Mapping[str, str] = {"train": "Supervised fine-tuning", "align": "Preference learning (DPO)"}
"""The training steps with their display names."""


class ModelFound(Frozen):
    """The registered version; `digest` is the SHA-256 of its artifact's manifest."""

    name: str
    version: str
    digest: str


class MeasuredScores(Frozen):
    """One stage of the model on the held-out rows; null if it was not measured."""

    valid_json: float | None
    exact_match: float | None
    good_reply: float | None
    judge: float | None


class Bounds(Frozen):
    """A 95 % confidence interval."""

    low: float
    high: float


class StageScores(Frozen):
    """The three stages; `rlaif` is null for the pipeline without it."""

    base: MeasuredScores | None
    sft: MeasuredScores | None
    rlaif: MeasuredScores | None

    def of(self, stage: str) -> MeasuredScores | None:
        """Return the scores of a stage by its key in STAGES."""
        return {"base": self.base, "sft": self.sft, "rlaif": self.rlaif}[stage]


class Report(Frozen):
    """The content of `report.json`; other programs read it, so its shape is fixed."""

    job_id: str
    model: ModelFound
    rows: int
    scores: StageScores
    intervals: dict[str, dict[str, Bounds]]
    """By stage and score, where the evaluation measured one."""
    seconds: dict[str, float]
    """`total` from the request to the end of the job, and each step from its start to its end."""
    events: dict[str, int]
    peak_memory_bytes: int
    deployment: DeploymentFound | None
    """How the version answered at the address for callers; null if it was not served, which the demo says."""


@dataclass(frozen=True)
class Unfinished(Exception):
    """The job completed without what a report needs."""

    missing: str

    def __str__(self) -> str:
        return (
            f"the job has ended, but {self.missing} was not read from the topics; read them with `neuroweaver topics read`"
        )


def report(
    job: ObservedJob,
    pipeline: Pipeline,
    *,
    rows: int,
    peak_memory_bytes: int,
    deployment: DeploymentFound | None = None,
) -> Report:
    """Make the report of a completed job. Raises Unfinished if ModelRegistered or the job's times are missing."""
    if job.registered is None:
        raise Unfinished("ModelRegistered")
    if job.seconds is None:
        raise Unfinished("the begin or end of the job")
    stages = STAGES[pipeline]
    measured = {stage: _scores(job, *stages[stage]) if stage in stages else None for stage in STAGE_TITLES}
    intervals = {stage: found for stage, (evaluation, _) in stages.items() if (found := _intervals(job, evaluation))}
    spent = {step.name: round(step.seconds, 1) for step in job.steps.values() if step.seconds is not None}
    registered = job.registered
    return Report(
        job_id=job.job_id,
        model=ModelFound(name=registered.model, version=registered.version, digest=registered.artifact.sha256),
        rows=rows,
        scores=StageScores(**measured),
        intervals=intervals,
        seconds={"total": round(job.seconds, 1), **spent},
        events=dict(sorted(job.counts.items())),
        peak_memory_bytes=peak_memory_bytes,
        deployment=deployment,
    )


def _scores(job: ObservedJob, evaluation: str, scoring: str | None) -> MeasuredScores | None:
    measured = job.result(evaluation)
    if measured is None:
        return None
    judged = job.result(scoring) if scoring else None
    return MeasuredScores(
        valid_json=_metric(measured, "valid_json"),
        exact_match=_metric(measured, "exact_match"),
        good_reply=_metric(measured, "good_reply"),
        judge=_metric(judged, "judge") if judged else None,
    )


def _intervals(job: ObservedJob, evaluation: str) -> dict[str, Bounds]:
    measured = job.result(evaluation)
    metrics = paired(measured.metrics) if measured else ()
    return {
        metric.name: Bounds(low=round(metric.bounds[0], 4), high=round(metric.bounds[1], 4))
        for metric in metrics
        if metric.name in MeasuredScores.model_fields and metric.bounds
    }


def _metric(result: StepResult, name: str) -> float | None:
    value = result.metrics.get(name)
    return None if value is None else round(value, 4)


def percent(share: float | None) -> str:
    """Return a share as text for people."""
    return "–" if share is None else f"{share:.0%}"


def share(value: float | None, bounds: Bounds | None) -> str:
    """Return a share with its confidence interval, if it has one, as text for people."""
    if value is None or bounds is None:
        return percent(value)
    return f"{value:.0%} ({bounds.low:.0%} to {bounds.high:.0%})"


def score(value: float | None) -> str:
    """Return a judge score as text for people."""
    return "–" if value is None else f"{value:+.2f}"


def duration(seconds: float) -> str:
    """Return a duration as text for people."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


COLUMNS = ("model", "valid JSON", "exact queue and priority", "good replies", "judge score")


def table(found: Report) -> list[tuple[str, str, str, str, str]]:
    """Return the rows of the closing table under COLUMNS, one per measured stage."""
    lines = []
    for stage, title in STAGE_TITLES.items():
        scores = found.scores.of(stage)
        if scores is not None:
            bounds = found.intervals.get(stage, {})
            json, exact, good = (
                share(value, bounds.get(name))
                for name, value in (
                    ("valid_json", scores.valid_json),
                    ("exact_match", scores.exact_match),
                    ("good_reply", scores.good_reply),
                )
            )
            lines.append((title, json, exact, good, score(scores.judge)))
    return lines
