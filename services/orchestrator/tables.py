"""Describes the orchestrator's tables as they are now; a test compares them with what the migrations made."""

from sqlalchemy import Column, Computed, DateTime, Index, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from services.chassis.kernel.tables import OPERATIONAL, aggregate_table
from services.chassis.postgres.summaries import number_of, object_of, text_of, time_of
from services.orchestrator.domain.job import JOB

metadata = MetaData()

SUMMARY = {
    "job_id": text_of("key"), **{name: text_of(name) for name in ("status", "requester", "pipeline", "model", "version")},
    **{name: number_of(name) for name in ("steps", "steps_done")},
    **{name: time_of(name) for name in ("requested_at", "ended_at", "updated_at")}, "sequence": number_of("sequence"),
}  # fmt: skip
"""The fields of a JobSummary and the SQL that computes them."""

job = aggregate_table(
    metadata,
    JOB,
    Column("status", Text),
    Column("requester", Text),
    Column("pipeline", Text),
    Column("model", Text),
    Column("version", Text),
    Column("steps", Integer),
    Column("steps_done", Integer),
    Column("requested_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("summary", Text, Computed(object_of(SUMMARY), persisted=True), comment="JobSummary as JSON."),
)
Index("job_newest", job.c.requested_at.desc(), job.c.key.desc())
Index("job_status", job.c.status, job.c.requested_at.desc(), job.c.key.desc())
Index("job_requester", job.c.requester, job.c.requested_at.desc(), job.c.key.desc())
Index("job_model", job.c.model, job.c.requested_at.desc(), job.c.key.desc())

progress = Table(
    "progress",
    metadata,
    Column("key", Text, primary_key=True, comment="job/step/attempt."),
    Column("job_id", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, comment="Time of the event; only grows."),
    Column("data", JSONB, nullable=False, comment="StepProgressed."),
    Index("progress_job_id", "job_id"),
    schema=OPERATIONAL,
    comment="The latest progress of each attempt; events may be lost, and this is no projection.",
)
