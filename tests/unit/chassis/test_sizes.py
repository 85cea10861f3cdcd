"""Whatever others wrote, what our services say of it fits into a record."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.bounds import (
    HEADER_BYTES,
    RECORD_BYTES,
    RESULT_BYTES,
    SETTINGS_BYTES,
    bytes_of,
    cut,
    fitting_fault,
    fitting_reasons,
    fitting_result,
)
from schemas.datasets import ROWS_AT_ONCE
from schemas.discards import LogAccepted, MovedPosition
from schemas.envelope import encode
from schemas.generate.examples import EXAMPLES
from schemas.jobs import StepFault, StepResult
from schemas.reasons import Reason
from schemas.topics import EVENT_TYPES
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.deadletters.conversion import row_of
from services.chassis.kernel.deadletters.models import Fault
from services.chassis.kernel.transaction.writing import EventTooLarge, fill_outbox
from services.registry.deploying.commands import OPEN_AT_MOST
from services.registry.domain.aliases import ALIASES_AT_MOST
from services.registry.domain.deployments.judged import PAIRS_TOLD
from services.registry.domain.describing import TAGS_AT_MOST
from services.registry.policy_views import GATES_AT_MOST, ROWS_AT_MOST
from tests.log import HeldRecord

WORST = "\x01\u6f22\U0001f600"
"""Escaped to six bytes, three bytes, four bytes."""
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3000) | st.sampled_from([WORST * 2000, "x" * 100_000])
REASON = st.builds(Reason, field=TEXT, value=st.none() | TEXT, message=TEXT, remedy=TEXT)
FAULT = st.builds(
    StepFault,
    cause=TEXT,
    message=TEXT,
    reasons=st.lists(REASON, max_size=4).map(tuple),
    log_tail=st.lists(TEXT, max_size=4).map(tuple),
)
LARGE = Reason(field=WORST * 9999, value=WORST * 9999, message=WORST * 9999, remedy=WORST * 9999)
REASONS = fitting_reasons([LARGE] * 60)
BAD = fitting_fault(StepFault(cause=WORST * 99, message=WORST * 9999, reasons=(LARGE,) * 60, log_tail=(WORST * 999,) * 90))
ARTIFACT = ArtifactRef(uri="s3://" + "b" * 63 + "/" + "k" * 1024, sha256="a" * 64, size=2**62)
RESULT = fitting_result(
    StepResult(
        inputs=dict.fromkeys(("dataset", "adapter", "preferences"), "a" * 64),
        outputs={"predictions": ARTIFACT},
        metrics={f"{WORST}{number}": 1 / 3 for number in range(5000)},
        facts={f"{WORST}{number}": WORST * 99 for number in range(5000)},
    )
)
RESULTS = {f"{'s' * 120}{number}": RESULT for number in range(100)}
NAME = "n" * 128
ABOUT = {"job_id": NAME, "step": NAME}
GATE = {"metric": NAME, "comparison": "at_least", "worse_by": 1 / 3, "rows": ROWS_AT_MOST, "agreement": 1 / 3}
SAID = {
    "gate": GATE, "verdict": "inconclusive", "why": "w" * 300,
    **dict.fromkeys(("value", "low", "high", "rows", "agreement", "holder_value", "holder_low", "holder_high"), -1 / 3),
}  # fmt: skip
MOVED = {
    "model": NAME, "alias": NAME, "previous": NAME, "by": WORST * 85, "reason": WORST * 666, "move": f"{NAME}/{NAME}",
    "supersedes": f"{NAME}/{NAME}",
}  # fmt: skip
REQUEST = {**MOVED, "version": NAME, "request": f"{NAME}/{NAME}", "registered_by": f"{NAME}/{NAME}"}


DEPLOYED = {"deployment": NAME, "model": NAME, "generation": 10**9, "version": NAME}
JUDGED = {
    "wins": 2**62, "losses": 2**62, "ties": 2**62, "unjudged": 2**62, "low": 1 / 3, "high": 1 / 3, "judge": WORST * 666,
    "judge_model_sha256": NAME, "rubric_sha256": "a" * 64, "pairs": ("a" * 64,) * PAIRS_TOLD,
}  # fmt: skip
CHECK = {"name": NAME, "verdict": "inconclusive", "value": 1 / 3, "limit": 1 / 3, "requests": 2**62}
ANALYSIS = {
    "percent": 1 / 3,
    "seconds": 1 / 3,
    "verdict": "inconclusive",
    "checks": (*(CHECK,) * 10, {**CHECK, "judged": JUDGED}),
}
SAID_WHY = {"by": WORST * 85, "reason": WORST * 666}


def with_settings(example: EventData, **fields: Any) -> dict[str, Any]:
    return {**example.model_dump(), **fields}


LARGEST: dict[str, dict[str, Any]] = {
    "JobRejected": {"job_id": "\u6f22" * 256, "reasons": REASONS},
    "JobFailed": {"job_id": NAME, "step": NAME, "fault": BAD},
    "JobCancelled": {"job_id": NAME, "reason": WORST * 667},
    "JobCompleted": {"job_id": NAME, "model": NAME, "version": NAME},
    "JobCancelRequested": {"job_id": "\u6f22" * 256, "requester": WORST * 9999, "reason": WORST * 9999},
    "JobControlRequested": {
        "job_id": "\u6f22" * 256, "control": WORST * 99, "priority": 10**18, "requester": WORST * 9999, "reason": WORST * 9999,
    },
    "JobControlled": {
        "job_id": NAME, "control": WORST * 10, "request_id": "i" * 256, "requester": WORST * 85, "reason": WORST * 666,
        "attempts": tuple({"step": f"{'s' * 120}{number}", "attempts": 10**6} for number in range(100)),
    },
    "JobControlRefused": {"job_id": NAME, "control": WORST * 10, "request_id": "i" * 256, "reasons": REASONS},
    "StepPriorityChanged": ABOUT,
    "StepCheckpointRequested": ABOUT,
    "StepRequested.v2": {"results": RESULTS, "inputs": {"dataset": ARTIFACT, "adapter": ARTIFACT}, "requester": WORST * 85, **ABOUT},
    "StepStarted": {"worker": "h" * 300, **ABOUT},
    "StepCompleted": {"result": RESULT, **ABOUT},
    "StepFailed": {"fault": BAD, **ABOUT},
    "StepCancelRequested": {"reason": "deadline", **ABOUT},
    "StepCancelled": ABOUT,
    "StepProgressed": ABOUT,
    "FeedbackRecorded": {"judge": "j" * SETTINGS_BYTES, **ABOUT},
    "ModelPromoted": {**REQUEST, "approved_by": WORST * 85, "approval_reason": WORST * 666},
    "PromotionRequested": REQUEST,
    "PromotionDeclined": REQUEST,
    "ModelRolledBack": {**MOVED, "version": NAME},
    "AliasRemoved": MOVED,
    "GatesChecked": {**MOVED, "version": NAME, "holder": NAME, "check": NAME, "gates": (SAID,) * GATES_AT_MOST},
    "AliasPolicySet": {**MOVED, "policy": {"gates": (GATE,) * GATES_AT_MOST}},
    "AliasRefused": {"model": NAME, "alias": NAME, "version": NAME, "by": WORST * 85, "reasons": REASONS},
    "DatasetRegistered": {
        "dataset": NAME, "artifact": ARTIFACT, "preferences": ARTIFACT, "metrics": RESULT.metrics, "reference": WORST * 666,
        "source": WORST * 166, "licence": WORST * 33, "layout": WORST * 666, "notes": WORST * 666, "registered_by": WORST * 85, **ABOUT,
    },
    "RowsErased": {"erasure": NAME, "dataset": NAME, "rows": ("f" * 64,) * ROWS_AT_ONCE, "by": WORST * 85, "reason": WORST * 666},
    "RowsRemoved": {"dataset": NAME, "artifact": ARTIFACT, "preferences": ARTIFACT},
    "ErasedRowsLearnt": {
        "model": NAME, "version": NAME, **ABOUT, "erasure": NAME, "dataset": NAME * 2, "through": NAME * 2, "by": WORST * 85,
        "reason": WORST * 666,
    },
    "VersionStateChanged": {"model": NAME, "version": NAME, **ABOUT, "by": WORST * 85, "reason": WORST * 666},
    "VersionFilesRemoved": {"model": NAME, "version": NAME, **ABOUT, "artifact": ARTIFACT},
    "VersionDescribed": {
        "model": NAME, "version": NAME, **ABOUT, "by": WORST * 85, "description": WORST * 666,
        "tags": {f"{'t' * 120}{number}": WORST * 85 for number in range(TAGS_AT_MOST)},
    },
    "DeploymentRequested": {**DEPLOYED, **SAID_WHY, "artifact": ARTIFACT, "kind": NAME, "base_model": WORST * 666, "alias": NAME},
    "DeploymentAdvanced": {**DEPLOYED, **SAID_WHY, "percent": 1 / 3, "analysis": ANALYSIS},
    "DeploymentShadowed": {**DEPLOYED, "judgement": NAME, "pairs": ARTIFACT, "count": 2**62, "active_version": NAME},
    "DeploymentReady": {**DEPLOYED, "previous": NAME, "analysis": ANALYSIS},
    "DeploymentDegraded": {**DEPLOYED, "reason": NAME, "message": WORST * 666},
    "DeploymentRolledBack": {**DEPLOYED, **SAID_WHY, "to_version": NAME, "reason": NAME, "message": WORST * 666, "analysis": ANALYSIS},
    "DeploymentRetired": {**DEPLOYED, **SAID_WHY},
    "ModelChanged": {
        "model": NAME, "version": NAME, "aliases": {f"{'a' * 120}{number}": NAME for number in range(ALIASES_AT_MOST)},
        "deployments": ({"name": NAME, "version": NAME, "sha256": "a" * 64, "target": NAME, "degraded": True, "sequence": 2**62},) * OPEN_AT_MOST,
    },
}  # fmt: skip
"""Fields that others fill, at their largest; the settings of a step, and request with plan, have a bound of their own."""


def test_faults_beyond_the_fiftieth_are_counted() -> None:
    assert len(REASONS) == 50
    assert REASONS[-1].message == "11 more faults were found and are not listed"


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_largest_event_of_every_type_fits_into_a_record(name: str) -> None:
    data = EVENT_TYPES[name].model_validate({**EXAMPLES[name].data.model_dump(), **larger(name)})
    value, headers = encode(EXAMPLES[name]._replace(data=data, subject="s" * 512, causation_id="c" * 256))
    assert sum(len(key) + len(held or b"") + 32 for key, held in headers) + 1024 <= HEADER_BYTES
    assert len(value) + beside(name) <= RECORD_BYTES - HEADER_BYTES


def larger(name: str) -> dict[str, Any]:
    if name == "ModelRegistered":
        lineage = {
            **EXAMPLES[name].data.model_dump()["lineage"],
            "results": RESULTS,
            "configuration": {"x": "y" * 64 * 1024},
        }
        return {"model": NAME, "artifact": ARTIFACT, "metrics": RESULT.metrics, "lineage": lineage}
    if name == "RecordDiscarded":
        record = HeldRecord("t", 0, 0, 0, None, None, ())
        error = row_of(record, "failed", Fault(WORST * 9999, WORST * 9999))["error"]
        return {"error": error, "reason": WORST * 666, "discarded_by": WORST * 85, "event_id": "i" * 256}
    if name == "LogAccepted":
        return {"partitions": tuple(MovedPosition(partition=p, before=2**62, now=2**62) for p in range(5000))}
    return LARGEST.get(name, {})


def beside(name: str) -> int:
    """What settings may take of the event: of a step at most half of what request and plan take together."""
    return SETTINGS_BYTES // 2 if name == "StepRequested.v2" else 0


def test_every_type_with_text_of_others_is_among_them() -> None:
    own = {"JobRequested", "JobAccepted.v2", "ModelRegistered", "RecordDiscarded", "RecordsSkipped", "LogAccepted"}
    assert set(EVENT_TYPES) == LARGEST.keys() | own
    assert LogAccepted.type_name() in own


@given(FAULT)
def test_a_fault_is_cut_and_what_fits_is_left_as_it_is(fault: StepFault) -> None:
    fitted = fitting_fault(fault)
    assert bytes_of(fitted) < 220_000
    assert fitting_fault(fitted) == fitted
    if max(map(len, (fault.cause, fault.message))) < 10:
        assert (fitted.cause, fitted.message) == (fault.cause, fault.message)


@given(TEXT, st.integers(20, 5000))
def test_a_text_is_cut_to_so_many_bytes_of_json(text: str, limit: int) -> None:
    found = cut(text, limit)
    assert bytes_of(found) <= limit
    assert found == text or text.startswith(found[:-1])
    assert (bytes_of(text) <= limit) == (found == text)


@given(st.dictionaries(TEXT, st.none() | st.floats(allow_nan=False), max_size=9), st.dictionaries(TEXT, TEXT, max_size=9))
def test_a_result_says_what_was_left_out(metrics: dict[str, float | None], facts: dict[str, str]) -> None:
    result = StepResult(outputs={"adapter": ARTIFACT}, metrics=metrics, facts=facts)
    fitted = fitting_result(result)
    assert bytes_of(fitted.metrics) + bytes_of(fitted.facts) <= RESULT_BYTES
    assert fitted.outputs == result.outputs
    assert fitted == result or "too long for an event" in fitted.facts["left_out"]


async def test_an_event_that_no_record_holds_is_refused_where_it_is_made() -> None:
    fact = EVENT_TYPES["JobCancelled"].model_validate({"job_id": "j", "reason": "\u6f22" * 400_000})
    with pytest.raises(EventTooLarge, match=r"JobCancelled of j has 12\d+ bytes"):
        await fill_outbox(None, [outside_event("s", fact, correlation_id="j", subject="j")])  # type: ignore[arg-type]
    assert json.loads(encode(outside_event("s", fact, correlation_id="j"))[0])
