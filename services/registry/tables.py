"""Why: describes the registry's tables as they are now; a test compares them with what the migrations made."""

from sqlalchemy import Column, Computed, DateTime, Index, MetaData, Text
from sqlalchemy.dialects.postgresql import JSONB

from services.chassis.executor.tables import attempt_table, work_table
from services.chassis.tables import aggregate_table
from services.registry.domain.models import MODEL, REGISTRATION

metadata = MetaData()

attempt = attempt_table(metadata)
work = work_table(metadata)

model = aggregate_table(metadata, MODEL, Column("aliases", JSONB, Computed("state -> 'aliases'", persisted=True)))

registration = aggregate_table(
    metadata,
    REGISTRATION,
    Column("model", Text),
    Column("version", Text),
    Column("job_id", Text),
    Column("requester", Text),
    Column("base_model", Text),
    Column("dataset_sha256", Text),
    Column("registered_at", DateTime(timezone=True)),
    Column("metrics", JSONB, Computed("state -> 'registered' -> 'metrics'", persisted=True)),
)
Index("registration_newest", registration.c.registered_at.desc(), registration.c.key.desc())
Index("registration_version", registration.c.model, registration.c.version, unique=True)
