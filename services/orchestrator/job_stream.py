"""Builds the event stream of one job, serialised once for all listeners; each listener's position is a revision number.

The stream has snapshots, not a log: a listener that was away or slow gets what changed since, each item in its present
state.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fastapi.sse import format_sse_event

from services.orchestrator.domain.state import ENDED
from services.orchestrator.views import JobProgress, JobView, StepProgress


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One item in its present state, serialised for the stream."""

    revision: int
    """Revision of the stream at which it last changed."""
    version: object
    frame: bytes


@dataclass(frozen=True, slots=True)
class JobStream:
    """The stream of a job. Its revision counts the polls that found a change."""

    revision: int
    job: StreamItem
    steps: Mapping[str, StreamItem]
    end: bytes
    """Empty while the job has not ended."""


def next_stream(before: JobStream | None, view: JobView, progress: JobProgress) -> JobStream:
    """Return the stream after a poll that found the job in this state."""
    revision = before.revision + 1 if before else 1
    data = view.model_dump_json()
    version = hashlib.sha256(data.encode()).hexdigest()[:16]
    job = before.job if before and before.job.version == version else None
    known = before.steps if before else {}
    steps = {step.step: _step(known.get(step.step), revision, step, step.at) for step in progress.steps if step.at}
    end = format_sse_event(event="end", data_str=json.dumps({"status": view.status})) if view.status in ENDED else b""
    job = job or StreamItem(revision, version, format_sse_event(event="job", data_str=data, id=version))
    return JobStream(revision, job, steps, end)


def _step(before: StreamItem | None, revision: int, step: StepProgress, at: datetime) -> StreamItem:
    version = (step.attempt, at)
    if before is not None and before.version == version:
        return before
    return StreamItem(revision, version, format_sse_event(event="progress", data_str=step.model_dump_json()))


def since(stream: JobStream, revision: int, seen: str | None = None) -> bytes:
    """Return what changed after `revision` (0: everything).

    A job whose version is `seen` is sent again only if it changed since.
    """
    changed = [stream.job] if stream.job.revision > revision and (revision or stream.job.version != seen) else []
    changed += [step for step in stream.steps.values() if step.revision > revision]
    return b"".join(one.frame for one in changed) + (stream.end if stream.revision > revision else b"")
