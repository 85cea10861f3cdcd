"""What listeners of one job are told, written once for all of them; who was told how much is a number.

Snapshots, not a log: a listener that was away, or slow, is told what changed since, each thing as it is now.
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
    """One thing as it is now, in the words of the stream."""

    revision: int
    """Of the story when it changed last."""
    version: object
    frame: bytes


@dataclass(frozen=True, slots=True)
class JobStream:
    """A job as it is told. Revisions count the looks that found something new."""

    revision: int
    job: StreamItem
    steps: Mapping[str, StreamItem]
    end: bytes
    """Empty while the job goes on."""


def go_on(before: JobStream | None, view: JobView, progress: JobProgress) -> JobStream:
    """The story after a look that found the job like this."""
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


def since(story: JobStream, revision: int, seen: str | None = None) -> bytes:
    """What changed after `revision` (0: everything). A job whose version is `seen` is not told again, unless it changed since."""
    told = [story.job] if story.job.revision > revision and (revision or story.job.version != seen) else []
    told += [step for step in story.steps.values() if step.revision > revision]
    return b"".join(one.frame for one in told) + (story.end if story.revision > revision else b"")
