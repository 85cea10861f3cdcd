"""Parses a job request from HTTP by the same rules as one from Kafka, and makes the same event of it."""

import json
from datetime import UTC, datetime
from typing import Any

from schemas.attributes import PREFIX
from schemas.envelope import Event, Unreadable, decode
from schemas.ids import new_id
from schemas.reasons import Reason, shown
from schemas.requests import JobRequested
from services.chassis.serving.problem import Problem

EDGE = "neuroweaver/edge"


def job_requested(body: bytes) -> JobRequested:
    """Parse the event's data from an HTTP body; a missing job id is generated. Raises a 422 Problem for an invalid body."""
    headers = {"ce_specversion": "1.0", "ce_id": new_id(), "ce_source": EDGE, "ce_type": PREFIX + JobRequested.type_name()}
    sent = [(name, value.encode()) for name, value in headers.items()]
    try:
        event = decode(_with_job_id(body), sent, {JobRequested.type_name()}, datetime.now(UTC))
    except Unreadable as error:
        remedy = "send a JobRequest as JSON; /docs shows one"
        reason = Reason(
            field="(request)", value=shown(body[:100].decode(errors="replace")), message=str(error), remedy=remedy
        )
        raise Problem.of(422, "The request is not valid", [reason]) from None
    assert isinstance(event, Event)
    assert isinstance(event.data, JobRequested)
    return event.data


def _with_job_id(body: bytes) -> bytes:
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body  # the decoder reports the fault
    if not isinstance(data, dict) or "job_id" in data:
        return body
    return json.dumps({"job_id": new_id(), **data}).encode()
