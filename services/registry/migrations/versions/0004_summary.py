"""Adds a generated column with each version's list item, an index for each filter, and the aliases by version to models."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from services.chassis.postgres.summaries import beginning_of, number_of, text_of, time_of

revision = "registry_0004"
down_revision = "registry_0003"
branch_labels = None
depends_on = None

METRICS = "state -> 'registered' -> 'metrics'"
SUMMARY = {
    "id": text_of("model || '@' || version"), "name": text_of("model"), "version": text_of("version"),
    "registered_at": time_of("registered_at"), "job_id": text_of("job_id"), "requester": text_of("requester"),
    "base_model": text_of("base_model"), "dataset_sha256": text_of("dataset_sha256"), "metrics": number_of(METRICS),
}  # fmt: skip
NAMED = """UPDATE projection.model SET named = (
    SELECT coalesce(jsonb_object_agg(version, names), '{}') FROM (
        SELECT value AS version, jsonb_agg(key ORDER BY key COLLATE "C") AS names FROM jsonb_each_text(aliases) GROUP BY value
    ) AS named)"""


FILTERS = ("model", "job_id", "requester", "base_model", "dataset_sha256")


def upgrade() -> None:
    # in the order in which readers lock them: else a reader and this one wait for each other, and PostgreSQL ends either
    op.execute("LOCK TABLE projection.registration, projection.model IN ACCESS EXCLUSIVE MODE")
    op.add_column("model", sa.Column("named", JSONB), schema="projection")
    op.execute(NAMED)
    column = sa.Column("summary", sa.Text, sa.Computed(beginning_of(SUMMARY), persisted=True))
    op.add_column("registration", column, schema="projection")
    op.execute("ALTER TABLE projection.registration ALTER summary SET STORAGE MAIN")  # see orchestrator_0003
    op.drop_column("registration", "metrics", schema="projection")
    newest = [sa.text("registered_at DESC"), sa.text("key DESC")]
    for name in FILTERS:
        op.create_index(f"registration_{name}", "registration", [name, *newest], schema="projection")


def downgrade() -> None:
    for column in FILTERS:
        op.drop_index(f"registration_{column}", "registration", schema="projection")
    op.add_column("registration", sa.Column("metrics", JSONB, sa.Computed(METRICS, persisted=True)), schema="projection")
    op.drop_column("registration", "summary", schema="projection")
    op.drop_column("model", "named", schema="projection")
