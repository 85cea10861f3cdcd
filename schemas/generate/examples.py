"""Contains one example of every event, all about the same job; the page, AsyncAPI and the tests share them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.datasets import DatasetRegistered, RowsErased, RowsRemoved
from schemas.deployments import (
    Analysis,
    Check,
    DeploymentAdvanced,
    DeploymentDegraded,
    DeploymentReady,
    DeploymentRequested,
    DeploymentRetired,
    DeploymentRolledBack,
    DeploymentShadowed,
    PairsJudged,
)
from schemas.discards import LogAccepted, MovedPosition, RecordDiscarded, RecordsSkipped
from schemas.envelope import Event
from schemas.gates import FAILED, INCONCLUSIVE, AliasPolicy, Gate, GateVerdict
from schemas.ids import root_traceparent, trace_id
from schemas.jobs import (
    FeedbackRecorded,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobControlled,
    JobControlRefused,
    JobFailed,
    JobRejected,
    StepCancelled,
    StepCancelRequested,
    StepCheckpointRequested,
    StepCompleted,
    StepFailed,
    StepFault,
    StepPriorityChanged,
    StepRequested,
    StepResult,
    StepStarted,
)
from schemas.latest import Deployed, ModelChanged
from schemas.models import (
    AliasPolicySet,
    AliasRefused,
    AliasRemoved,
    ErasedRowsLearnt,
    GatesChecked,
    Lineage,
    ModelPromoted,
    ModelRegistered,
    ModelRolledBack,
    PromotionDeclined,
    PromotionRequested,
    VersionDescribed,
    VersionFilesRemoved,
    VersionStateChanged,
)
from schemas.progress import StepProgressed
from schemas.reasons import Reason
from schemas.recipes.dataset import DatasetSettings
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequest, JobRequested
from schemas.steps import PlannedStep, Policy, PrepareSettings, RegisterSettings, TrainSettings
from schemas.versions import ALIAS_REMEDY, DEPRECATED, LIVE

JOB = "support-2026-11"
MODEL = "support-router"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
OUTSIDE, ORCHESTRATOR, TRAINER, FEEDBACK, REGISTRY = (
    "relaycore", "neuroweaver/orchestrator", "neuroweaver/trainer", "neuroweaver/feedback", "neuroweaver/registry"
)  # fmt: skip
_START = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
_TRACE = trace_id(root_traceparent(OUTSIDE, JOB))

REQUEST = {
    "job_id": JOB,
    "requester": "relaycore",
    "pipeline": "sft",
    "base_model": BASE,
    "dataset": {
        "reference": "s3://relaycore/support",
        "format": "jsonl",
        "columns": {"prompt": "request", "completion": "answer"},
    },
    "training": {"lora": {"rank": 16}, "quantization": "nf4", "optimiser": {"steps": 110, "learning_rate": 0.001}},
    "evaluation": {"metrics": ["loss", "valid_json", "exact_match"], "exact_match_fields": ["queue", "priority"]},
    "register_as": MODEL,
}
"""An example request; it has no deadline, so that a reader can send it on any day."""

_DATASET = ArtifactRef(uri=f"s3://neuroweaver/artifacts/{'5e' * 32}", sha256="5e" * 32, size=412_358)
_ADAPTER = ArtifactRef(uri=f"s3://neuroweaver/artifacts/{'a7' * 32}", sha256="a7" * 32, size=9_803_264)
_CANDIDATES = ArtifactRef(uri=f"s3://neuroweaver/artifacts/{'c4' * 32}", sha256="c4" * 32, size=288_140)
_ANSWERS = ArtifactRef(uri=f"s3://neuroweaver/artifacts/answer-pairs/sha256/{'9a' * 32}", sha256="9a" * 32, size=48_100)
_PREPARED = StepResult(outputs={"dataset": _DATASET}, metrics={"train_rows": 1200.0})
_TRAINED = StepResult(inputs={"dataset": "5e" * 32}, outputs={"adapter": _ADAPTER}, metrics={"loss": 0.41})
_REJECTED_FIELD = Reason(
    field="training.optimiser.steps",
    value="-5",
    message="input should be greater than or equal to 1",
    remedy="send a value that the message allows",
)
_KILLED = StepFault(
    cause="infrastructure",
    message="the child was killed by signal 9",
    log_tail=("step 61 of 110, loss 0.62",),
)
_UNREACHABLE = StepFault(
    cause="user",
    message="feedback.judge.endpoint: no answer (got http://judge.example:8000/v1); start the judge or correct the address",
    reasons=(
        Reason(
            field="feedback.judge.endpoint",
            value="http://judge.example:8000/v1",
            message="no answer",
            remedy="start the judge or correct the address",
        ),
    ),
)
_PLAN = (
    PlannedStep(
        name="prepare",
        kind="prepare",
        settings=PrepareSettings(base_model=BASE, dataset=DatasetSettings(reference="s3://relaycore/support")),
    ),
    PlannedStep(
        name="train",
        kind="train",
        needs=("prepare",),
        inputs={"dataset": "prepare.dataset"},
        settings=TrainSettings(base_model=BASE, training=JobRequest.model_validate(REQUEST).training),
    ),
    PlannedStep(
        name="register",
        kind="register",
        needs=("train",),
        inputs={"adapter": "train.adapter"},
        settings=RegisterSettings(base_model=BASE, model=MODEL),
    ),
)


@dataclass(frozen=True)
class _Example:
    """One example: its source, its subject, and its sequence number."""

    source: str
    subject: str
    sequence: int | None
    data: EventData


def _history() -> Iterator[_Example]:
    def job(number: int, data: EventData) -> _Example:
        return _Example(ORCHESTRATOR, JOB, number, data)

    train = {"job_id": JOB, "step": "train", "attempt": 1, "kind": "train"}
    label = {"job_id": JOB, "step": "label", "attempt": 1, "kind": "label"}
    yield _Example(OUTSIDE, JOB, None, JobRequested(job_id=JOB, request=dict(REQUEST)))
    accepted = JobAccepted(job_id=JOB, request=JobRequest.model_validate(REQUEST), plan=_PLAN, policy=Policy())
    yield job(1, accepted)
    yield job(1, JobRejected(job_id=JOB, reasons=(_REJECTED_FIELD,)))
    yield job(
        3,
        StepRequested.model_validate({
            **train,
            "settings": _PLAN[1].settings,
            "inputs": {"dataset": _DATASET},
            "results": {"prepare": _PREPARED},
            "requester": "relaycore",
            "deadline": _START + timedelta(hours=8),
        }),
    )  # fmt: skip
    about_train, about_label = f"{JOB}/train/1", f"{JOB}/label/1"
    yield _Example(TRAINER, about_train, 1, StepStarted.model_validate({**train, "worker": "trainer-0/4711"}))
    progressed = {"done": 61, "of": 110, "loss": 0.62, "learning_rate": 0.0006, "tokens_per_second": 148.8}
    rest = {"memory_bytes": 1_911_250_944, "eta_seconds": 210.7}
    yield _Example(TRAINER, about_train, None, StepProgressed.model_validate({**train, **progressed, **rest}))
    yield _Example(TRAINER, about_train, 2, StepCompleted.model_validate({**train, "result": _TRAINED}))
    yield _Example(TRAINER, about_train, 2, StepFailed.model_validate({**train, "fault": _KILLED}))
    yield job(4, StepCancelRequested.model_validate({**train, "reason": "cancel"}))
    yield _Example(TRAINER, about_train, 2, StepCancelled.model_validate(train))
    counts = {"candidates": 448, "comparisons": 112, "pairs": 97, "ties": 15, "invalid": 3}
    shares = {"agreement": 0.94, "position_consistency": None, "longer_preferred": 0.61}
    judged = {**label, "judge": "local/likelihood:SmolLM2-135M-Instruct", **counts, **shares}
    yield _Example(FEEDBACK, about_label, 2, FeedbackRecorded.model_validate(judged))
    lineage = Lineage(
        job_id=JOB,
        step="register",
        requester="relaycore",
        base_model=BASE,
        base_model_sha256="b1" * 32,
        dataset_sha256="5e" * 32,
        configuration={"method": "sft", "lora": {"rank": 16, "alpha": 32}},
        results={"prepare": _PREPARED, "train": _TRAINED},
    )
    metrics = {"loss": 0.44, "valid_json": 1.0, "exact_match": 0.93}
    registered = ModelRegistered(model=MODEL, version="1.0.0", artifact=_ADAPTER, lineage=lineage, metrics=metrics)
    yield _Example(REGISTRY, MODEL, 1, registered)
    moved = {"model": MODEL, "version": "1.0.0", "by": "relaycore", "move": f"{JOB}/register"}
    candidate = ModelPromoted.model_validate(
        {**moved, "alias": "candidate", "previous": None, "reason": f"registered by job {JOB}"}
    )
    yield _Example(REGISTRY, MODEL, 2, candidate)
    back = {**moved, "alias": "production", "previous": "1.1.0", "reason": "Answers are empty.", "by": "ana"}
    yield _Example(
        REGISTRY, MODEL, 3, ModelRolledBack.model_validate({**back, "move": "019a4410-76c0-7000-8000-000000000008"})
    )
    gone = {**back, "reason": "Nobody uses it.", "move": "019a4410-76c0-7000-8000-000000000009"}
    yield _Example(REGISTRY, MODEL, 4, AliasRemoved.model_validate(gone))
    like_a_version = Reason(
        field="alias", value="'v1'", message="an alias must not look like a number or a version", remedy=ALIAS_REMEDY
    )
    yield _Example(
        REGISTRY,
        MODEL,
        5,
        AliasRefused(model=MODEL, alias="v1", version="1.0.0", by="relaycore", reasons=(like_a_version,)),
    )
    not_worse = Gate(metric="exact_match", comparison="at_least", worse_by=0.01, rows=100)
    policy = AliasPolicy(gates=(not_worse,), protected=True)
    rules = {"model": MODEL, "alias": "production", "by": "ana", "reason": "Customers see its answers."}
    yield _Example(REGISTRY, MODEL, 6, AliasPolicySet.model_validate({**rules, "policy": policy}))
    said = GateVerdict(
        gate=not_worse, verdict=INCONCLUSIVE, why="the interval, from -0.04 to +0.06 around the limit, spans it", value=0.93,
        low=0.9, high=0.96, rows=200, holder_value=0.93, holder_low=0.89, holder_high=0.96,
    )  # fmt: skip
    checked = {**moved, "alias": "production", "holder": "1.1.0", "verdict": INCONCLUSIVE, "check": moved["move"]}
    yield _Example(REGISTRY, MODEL, 7, GatesChecked.model_validate({**checked, "gates": (said,)}))
    about = {"model": MODEL, "version": "1.0.0", "job_id": JOB, "step": "register", "by": "ana"}
    words = {"description": "The first one without the data of 2025.", "tags": {"team": "support", "reviewed": "yes"}}
    yield _Example(REGISTRY, MODEL, 8, VersionDescribed.model_validate({**about, **words}))
    wanted = {**rules, "version": "1.0.0", "request": "019a4410-76c0-7000-8000-00000000000a"}
    wants = {**wanted, "previous": "1.1.0", "registered_by": moved["move"], "verdict": "passed", "reason": "It is as good."}
    yield _Example(REGISTRY, MODEL, 9, PromotionRequested.model_validate(wants))
    declined = {**wanted, "by": "bo", "reason": "Not before the release."}
    yield _Example(REGISTRY, MODEL, 10, PromotionDeclined.model_validate(declined))
    told = DatasetRegistered(
        dataset="support", sha256="5e" * 32, dataset_sha256="d5" * 32, rows={"train": 900, "test": 100},
        artifact=ArtifactRef(uri="s3://neuroweaver/artifacts/7c/" + "7c" * 32, sha256="7c" * 32, size=412_118),
        metrics={"rows_train": 900.0, "rows_test": 100.0, "supervised_tokens_train": 41_207.0, "tokens_median_row": 61.0},
        reference="s3://relaycore/support", source="Tickets of 2026, export of 1 October.", licence="proprietary",
        layout="prompt_completion: prompt, completion", registered_by="relaycore", job_id=JOB, step="prepare", attempt=1,
    )  # fmt: skip
    yield _Example(REGISTRY, f"{told.dataset}@{told.sha256}", 1, told)
    changed = {**about, "state": DEPRECATED, "previous": LIVE, "reason": "1.1.0 is better."}
    yield _Example(REGISTRY, MODEL, 11, VersionStateChanged.model_validate(changed))
    removed = {
        **about,
        "artifact": ArtifactRef(uri="s3://neuroweaver/artifacts/9b/" + "9b" * 32, sha256="9b" * 32, size=3_145_728),
    }
    yield _Example(REGISTRY, MODEL, 12, VersionFilesRemoved.model_validate(removed))
    of_data, why = {"dataset": told.dataset, "sha256": told.sha256}, {"by": "ana", "reason": "A customer asked for it."}
    erased = RowsErased.model_validate(
        {**of_data, **why, "erasure": "019a4410-76c0-7000-8000-00000000000b", "rows": ("e5" * 32,)}
    )
    yield _Example(REGISTRY, f"{told.dataset}@{told.sha256}", 2, erased)
    left = ArtifactRef(uri="s3://neuroweaver/artifacts/7d/" + "7d" * 32, sha256="7d" * 32, size=411_804)
    bytes_gone = RowsRemoved.model_validate({**of_data, "erasures": 1, "rows": 1, "artifact": left, "others": 2})
    yield _Example(REGISTRY, f"{told.dataset}@{told.sha256}", 3, bytes_gone)
    saw = {**about, **why, "erasure": erased.erasure, "dataset": f"{told.dataset}@{told.sha256}", "rows": 1}
    yield _Example(REGISTRY, MODEL, 13, ErasedRowsLearnt.model_validate(saw))
    yield job(6, JobCompleted(job_id=JOB, model=MODEL, version="1.0.0"))
    yield job(6, JobFailed(job_id=JOB, step="label", fault=_UNREACHABLE))
    wish = JobCancelRequested(job_id=JOB, requester="relaycore", reason="The data set was the wrong one.")
    yield _Example(OUTSIDE, JOB, None, wish)
    yield job(6, JobCancelled(job_id=JOB, reason=wish.reason))
    asked = JobControlRequested(job_id=JOB, control="priority", priority=10, requester="relaycore", reason="It is urgent.")
    yield _Example(OUTSIDE, JOB, None, asked)
    given = {"job_id": JOB, "control": asked.control, "request_id": "019a4410-76c0-7000-8000-000000000007"}
    yield job(7, JobControlled(**given, requester=asked.requester, reason=asked.reason, priority=asked.priority))
    yield job(8, StepPriorityChanged(job_id=JOB, step="train", attempt=1, kind="train", priority=10))
    yield job(8, StepCheckpointRequested(job_id=JOB, step="train", attempt=1, kind="train"))
    refused = Reason(field="control", value="retry", message="the job is running", remedy="retry it when it has failed")
    yield job(9, JobControlRefused(job_id=JOB, control="retry", request_id=given["request_id"], reasons=(refused,)))
    discarded = RecordDiscarded(
        service="registry",
        topic="neuroweaver.jobs",
        partition=3,
        offset=41_207,
        appended_at=_START,
        event_type="StepRequested.v2",
        event_id="019a4410-76c0-7000-8000-000000000004",
        error="ValueError: version 1.0.0 of support-router is taken",
        reason="Registered by hand as 1.0.1 while the fault was open.",
        discarded_by="ada",
    )
    yield _Example(REGISTRY, "registry", None, discarded)
    skipped = RecordsSkipped(
        service="registry",
        topic="neuroweaver.jobs",
        partition=5,
        first_offset=118,
        next_offset=121,
        error="offsets 118 to 120 were removed from the log before they were read",
        reason="Retention was one hour during the outage; the executors' outcomes were sent by hand.",
        skipped_by="ada",
    )
    yield _Example(REGISTRY, "registry", None, skipped)
    other_log = LogAccepted(
        service="registry",
        topic="neuroweaver.jobs",
        cluster_id="MkU3OEVBNTcwNTJENDM2Qg",
        topic_id="0f0a1c2e-8f5b-4a57-9f0e-3c6d1b2a4e55",
        previous_cluster_id="MkU3OEVBNTcwNTJENDM2Qg",
        previous_topic_id="7d1e9b40-2f6c-4c8a-b0d2-9a51f3c7e610",
        partitions=(MovedPosition(partition=0, before=41, now=0), MovedPosition(partition=1, before=38, now=0)),
        error="the topic that was read has the id 7d1e9b40-2f6c-4c8a-b0d2-9a51f3c7e610, and this one has "
        "0f0a1c2e-8f5b-4a57-9f0e-3c6d1b2a4e55",
        reason="The topic was created again with six partitions; all records of the old one had been read.",
        accepted_by="ada",
    )
    yield _Example(REGISTRY, "registry", None, other_log)
    yield from _of_deployment()


def _of_deployment() -> Iterator[_Example]:
    name = "support"
    about = {"deployment": name, "model": MODEL, "generation": 2, "version": "1.1.0"}
    wish = DeploymentRequested(
        **{**about, "by": "ana", "reason": "It answers the tickets of 2026."}, artifact=_ADAPTER, kind="adapter", base_model=BASE,
        base_model_sha256="5d" * 32, alias="production", follow=True,
    )  # fmt: skip
    gone = "the process that serves it ended with code -9"
    judged = PairsJudged(
        wins=3, losses=17, ties=4, unjudged=0, low=0.05, high=0.36, judge="openai:judge", judge_model_sha256=None,
        rubric_sha256="6e" * 32, pairs=(_ANSWERS.sha256,),
    )  # fmt: skip
    worse_answers = Check(name="judge_score", verdict=FAILED, value=0.15, limit=0.4, requests=20, judged=judged)
    failed = Check(name="error_rate", verdict=FAILED, value=0.24, limit=0.02, requests=50)
    analysis = Analysis(percent=10, seconds=61.5, verdict=FAILED, checks=(failed, worse_answers))
    worse = {
        "reason": "AnalysisFailed",
        "message": "error_rate is 0.24 of 50 requests, and may be 0.02",
        "analysis": analysis,
    }
    for number, told in enumerate(
        (
            wish,
            DeploymentAdvanced(**about, percent=1),
            DeploymentShadowed(
                **about,
                judgement="support.shadow-01980c5f-0000-7000-8000-000000000001",
                pairs=_ANSWERS,
                count=20,
                percent=1,
                active_generation=1,
                active_version="1.0.0",
            ),
            DeploymentReady(**about, sha256=_ADAPTER.sha256, previous="1.0.0"),
            DeploymentDegraded(**about, reason="Failed", message=gone),
            DeploymentRolledBack(
                **{**about, "generation": 3, "version": "1.2.0"}, to_generation=2, to_version="1.1.0", **worse
            ),
            DeploymentRetired(**about, by="ana", reason="Nobody asks it any more."),
        )
    ):
        yield _Example(REGISTRY, f"deployments/{name}", number + 4, told)
    served = Deployed(
        name=name, version="1.1.0", sha256=_ADAPTER.sha256, target="1.2.0", degraded=False, sequence=7
    )  # fmt: skip
    now = ModelChanged(
        model=MODEL,
        version="1.2.0",
        aliases={"candidate": "1.2.0", "production": "1.1.0"},
        deployments=(served,),
        sequence=8,
    )
    yield _Example(REGISTRY, MODEL, None, now)


def _events() -> Iterator[Event]:
    previous = None
    for number, told in enumerate(_history()):
        time = _START + timedelta(minutes=2 * number)
        stamp = f"{round(time.timestamp() * 1000):012x}"
        event = Event(
            id=f"{stamp[:8]}-{stamp[8:]}-7000-8000-{number + 1:012x}",
            source=told.source,
            subject=told.subject,
            time=time,
            data=told.data,
            sequence=told.sequence,
            correlation_id=JOB,
            causation_id=None if told.source == OUTSIDE else previous,
            traceparent=f"00-{_TRACE}-{number + 1:016x}-01",
        )
        previous = event.id
        yield event


EXAMPLES: dict[str, Event] = {event.type: event for event in _events()}
"""One example for each event; they include events that exclude each other, such as JobCompleted and JobFailed."""
