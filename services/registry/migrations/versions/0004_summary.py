"""What a list tells of a version stands finished in a column, and a model's row says the aliases of each version."""

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


def upgrade() -> None:
    op.add_column("model", sa.Column("named", JSONB), schema="projection")
    op.execute(NAMED)
    column = sa.Column("summary", sa.Text, sa.Computed(beginning_of(SUMMARY), persisted=True))
    op.add_column("registration", column, schema="projection")
    op.execute("ALTER TABLE projection.registration ALTER summary SET STORAGE MAIN")  # see orchestrator_0003
    op.drop_column("registration", "metrics", schema="projection")


def downgrade() -> None:
    op.add_column("registration", sa.Column("metrics", JSONB, sa.Computed(METRICS, persisted=True)), schema="projection")
    op.drop_column("registration", "summary", schema="projection")
    op.drop_column("model", "named", schema="projection")
