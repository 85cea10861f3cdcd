"""Describes each event in one plain sentence, so that a person can read what happened without reading JSON."""

from collections.abc import Mapping

from aiokafka import ConsumerRecord

from schemas.artifacts import ArtifactRef
from schemas.attributes import PREFIX
from schemas.base import EventData
from schemas.datasets import DatasetRegistered, RowsErased, RowsRemoved
from schemas.deployments import (
    DeploymentAdvanced,
    DeploymentDegraded,
    DeploymentReady,
    DeploymentRequested,
    DeploymentRetired,
    DeploymentRolledBack,
    DeploymentShadowed,
)
from schemas.discards import LogAccepted, RecordDiscarded, RecordsSkipped
from schemas.envelope import Event, UnknownVersion, Unreadable
from schemas.gates import AliasPolicy
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
    StepPriorityChanged,
    StepRequested,
    StepStarted,
)
from schemas.latest import ModelChanged
from schemas.models import (
    AliasMoved,
    AliasPolicySet,
    AliasRefused,
    AliasRemoved,
    ErasedRowsLearnt,
    GatesChecked,
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
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequested
from schemas.topics import EVENT_TYPES
from services.audit.causal_order import Order, OrderedRecord
from services.audit.raw_envelope import read_envelope
from services.chassis.kernel.records import event_in
from services.chassis.reports.metric_text import metric_texts

_LIMIT = 240
"""The most characters of a sentence; JSON output has everything."""
_DIGEST = 12
_METRICS = 4


def summarise(record: ConsumerRecord) -> OrderedRecord:
    """Summarise any record for ordering and display. The text comes from senders and is not yet safe for a terminal."""
    envelope = read_envelope(record.value, record.headers)
    sentence = _sentence(record)
    return OrderedRecord(
        order=Order(record.timestamp, record.topic, record.partition, record.offset),
        id=envelope.id,
        cause=envelope.causation_id,
        about=envelope.job_id,
        type=(envelope.type or "?").removeprefix(PREFIX),
        text=sentence if len(sentence) <= _LIMIT else sentence[: _LIMIT - 1] + "…",
    )


def _sentence(record: ConsumerRecord) -> str:
    try:
        event = event_in(record, EVENT_TYPES)
    except Unreadable as error:
        return f"not readable: {error}"
    except UnknownVersion as error:
        return str(error)
    return sentence(event.data, event.source) if isinstance(event, Event) else "a type that this version does not know"


def sentence(data: EventData, source: str) -> str:
    """Return the sentence for an event that `source` sent."""
    match data:
        case JobRequested(request=request):
            pipeline = request.get("pipeline", "sft")
            steps = f"{len(pipeline)} steps" if isinstance(pipeline, list) else pipeline
            return (
                f"{request.get('requester', source)} requests {steps} on {request.get('base_model')}, "
                f"to be registered as {request.get('register_as')}"
            )
        case JobCancelRequested(requester=requester, reason=reason):
            return f"{requester} cancels it{_why(reason)}"
        case JobControlRequested(control=control, priority=priority, requester=requester, reason=reason):
            return f"{requester} requests {control}{'' if priority is None else f' {priority}'}{_why(reason)}"
        case JobControlled(control=control, priority=priority):
            return f"{control}{'' if priority is None else f' {priority}'} as requested"
        case JobControlRefused(control=control, reasons=reasons):
            return f"{control} refused: {'; '.join(map(str, reasons))}"
        case StepCheckpointRequested() as step:
            return f"{_attempt(step.step, step.attempt)} is asked for a checkpoint"
        case StepPriorityChanged(priority=priority) as step:
            return f"{_attempt(step.step, step.attempt)} has priority {priority} now"
        case JobAccepted(plan=plan):
            return f"accepted, {len(plan)} steps: {', '.join(step.name for step in plan)}"
        case JobRejected(reasons=reasons):
            return f"rejected: {'; '.join(map(str, reasons))}"
        case StepRequested(inputs=inputs) as step:
            return f"{_attempt(step.step, step.attempt)} is requested{_artifacts(inputs, ' from ')}"
        case StepStarted(worker=worker) as step:
            return f"{_attempt(step.step, step.attempt)} starts on {worker}"
        case StepProgressed(done=done, of=of, unit=unit) as step:
            return f"{_attempt(step.step, step.attempt)}: {done} of {of} {unit}"
        case StepCompleted(result=result) as step:
            return f"{_attempt(step.step, step.attempt)} is done{_artifacts(result.outputs, ', made ')}{_metrics(result.metrics)}"
        case StepFailed(fault=fault) as step:
            return f"{_attempt(step.step, step.attempt)} failed ({fault.cause}): {fault.message}"
        case StepCancelRequested(reason=reason) as step:
            return f"{_attempt(step.step, step.attempt)} must stop{_why(reason)}"
        case StepCancelled() as step:
            return f"{_attempt(step.step, step.attempt)} has stopped"
        case FeedbackRecorded() as batch:
            return f"{_attempt(batch.step, batch.attempt)}: {feedback(batch)}"
        case JobCompleted(model=model, version=version):
            return f"completed as {model}@{version}" if model else "completed"
        case JobFailed(step=failed, fault=fault):
            return f"failed{f' at {failed}' if failed else ''} ({fault.cause}): {fault.message}"
        case JobCancelled(reason=reason):
            return f"cancelled{_why(reason)}"
        case ModelRegistered() as made:
            return f"{made.model}@{made.version} is the {made.kind} {made.artifact.sha256[:_DIGEST]}{_metrics(made.metrics)}{_evaluated(made)}"
        case ModelPromoted() as moved:
            before = f", before {moved.previous}" if moved.previous else ""
            approved = f", approved by {moved.approved_by}{_why(moved.approval_reason)}" if moved.approved_by else ""
            return f"{moved.model}@{moved.alias} is {moved.version} now{before}{_by(moved)}{approved}"
        case ModelRolledBack() as moved:
            return f"{moved.model}@{moved.alias} is {moved.version} again, and {moved.previous} no longer{_by(moved)}"
        case AliasRemoved() as removed:
            return f"{removed.model}@{removed.alias} is gone, and was {removed.previous}{_by(removed)}"
        case AliasRefused() as refused:
            return f"{refused.model}@{refused.alias} is not {refused.version}: {'; '.join(map(str, refused.reasons))}"
        case GatesChecked() as checked:
            said = [f"{one.gate.metric} {one.verdict}: {one.why}" for one in checked.gates]
            return (
                f"{checked.model}@{checked.version} and the gates of {checked.alias}: {checked.verdict} ({'; '.join(said)})"
            )
        case AliasPolicySet(policy=policy) as rules:
            return f"{rules.model}@{rules.alias} {_rules(policy)}{_by(rules)}"
        case PromotionRequested() as asked:
            instead = f" instead of {asked.previous}" if asked.previous else ""
            return f"{asked.model}@{asked.alias} waits for approval to be {asked.version}{instead}{_by(asked)}"
        case PromotionDeclined() as declined:
            return f"{declined.model}@{declined.alias} does not become {declined.version}, declined{_by(declined)}"
        case VersionDescribed(tags=tags) as told:
            told_tags = "".join(f", {name}={value}" for name, value in tags.items())
            return f"{told.model}@{told.version} is described by {told.by}{told_tags}{_why(told.description)}"
        case DatasetRegistered() as data:
            rows = ", ".join(f"{number:,} {split}" for split, number in data.rows.items())
            return f"{data.dataset}@{data.sha256[:_DIGEST]} is registered by {data.registered_by}: {rows} rows of {data.reference}"
        case RowsErased() as erased:
            return f"{erased.dataset}@{erased.sha256[:_DIGEST]} loses {len(erased.rows):,} rows, erased by {erased.by}{_why(erased.reason)}"
        case RowsRemoved() as gone_rows:
            about = f"{gone_rows.dataset}@{gone_rows.sha256[:_DIGEST]}"
            return f"the bytes of {gone_rows.rows:,} erased rows of {about} are removed, and those in {gone_rows.others:,} other artifacts"
        case ErasedRowsLearnt() as learnt:
            through = f" through {learnt.through}" if learnt.through else ""
            return f"{learnt.model}@{learnt.version} learnt{through} from {learnt.rows:,} rows of {learnt.dataset} that are erased"
        case DeploymentRequested(alias=alias, follow=follow) as wish:
            named = "" if alias is None else f", {alias}{' from now on' if follow else ''}"
            return f"{wish.deployment} is to serve {wish.model}@{wish.version}{named}, by {wish.by}{_why(wish.reason)}"
        case DeploymentAdvanced() as step:
            return f"{step.deployment} leads {step.percent:g} % of its callers to {step.model}@{step.version}{_why(step.reason)}"
        case DeploymentShadowed() as pairs:
            versions = f"{pairs.version} and {pairs.active_version}"
            return f"{pairs.deployment} has {pairs.count} pairs of answers of {versions} judged by {pairs.judgement}"
        case DeploymentReady() as ready:
            before = f" instead of {ready.previous}" if ready.previous else ""
            return f"{ready.deployment} serves {ready.model}@{ready.version}{before}"
        case DeploymentDegraded() as bad:
            return f"{bad.deployment} does not serve {bad.model}@{bad.version}, {bad.reason}{_why(bad.message)}"
        case DeploymentRolledBack() as back:
            return (
                f"{back.deployment} serves {back.to_version} and gave {back.version} up, {back.reason}{_why(back.message)}"
            )
        case DeploymentRetired() as retired:
            return f"{retired.deployment} is retired, by {retired.by}{_why(retired.reason)}"
        case VersionStateChanged() as changed:
            return f"{changed.model}@{changed.version} is {changed.state}, and was {changed.previous}{_by(changed)}"
        case VersionFilesRemoved() as without:
            return f"{without.model}@{without.version} has no files any more: it was deleted"
        case ModelChanged() as now:
            served = "".join(f", {one.name} serves {one.version or 'nothing'}" for one in now.deployments)
            return f"{now.model} has the version {now.version} and {len(now.aliases)} aliases now{served}"
        case RecordDiscarded() as gone:
            place = f"{gone.topic}:{gone.partition}:{gone.offset}"
            return f"{gone.discarded_by} discarded {place} for {gone.service}{_why(gone.reason)}"
        case RecordsSkipped() as past:
            stretch = f"{past.topic}:{past.partition}, offsets {past.first_offset} to {past.next_offset - 1}"
            return f"{past.skipped_by} let {past.service} skip {stretch}{_why(past.reason)}"
        case LogAccepted() as other:
            return f"{other.accepted_by} let {other.service} read {other.topic} with topic id {other.topic_id}{_why(other.reason)}"
    return ""


def _rules(policy: AliasPolicy | None) -> str:
    if policy is None:
        return "has no rules any more"
    more = (", is protected" if policy.protected else "", ", needs approval" if policy.approval else "")
    return f"has {len(policy.gates)} gates{''.join(more)} now"


def _by(
    change: AliasMoved | AliasRemoved | AliasPolicySet | PromotionRequested | PromotionDeclined | VersionStateChanged,
) -> str:
    by = "" if change.by == "unknown" else f", by {change.by}"
    return f"{by}{_why(change.reason)}"


def feedback(batch: FeedbackRecorded) -> str:
    """Describe a label batch."""
    agreement = "" if batch.agreement is None else f", {batch.agreement:.0%} in agreement with the rules"
    return (
        f"{batch.pairs} preference pairs of {batch.comparisons} comparisons of {batch.candidates} candidates by {batch.judge}, "
        f"{batch.ties} ties, {batch.invalid} without a judgement{agreement}"
    )


def _attempt(step: str, attempt: int) -> str:
    return step if attempt == 1 else f"{step} (attempt {attempt})"


def _why(reason: str) -> str:
    return f": {reason}" if reason else ""


def _artifacts(artifacts: Mapping[str, ArtifactRef], lead: str) -> str:
    return lead + ", ".join(f"{name} {ref.sha256[:_DIGEST]}" for name, ref in artifacts.items()) if artifacts else ""


def _metrics(metrics: Mapping[str, float | None]) -> str:
    shown = [f"{name} {text}" for name, text in metric_texts(metrics)]
    return "".join(f", {text}" for text in shown[:_METRICS]) + (", …" if len(shown) > _METRICS else "")


def _evaluated(made: ModelRegistered) -> str:
    return ", not evaluated" if made.evaluated is False else ""
