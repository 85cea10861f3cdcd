"""Adds a generated column with each job's list item, so that lists need not compute it, and an index for each filter."""

import sqlalchemy as sa
from alembic import op

from services.chassis.postgres.summaries import number_of, object_of, text_of, time_of

revision = "orchestrator_0003"
down_revision = "orchestrator_0002"
branch_labels = None
depends_on = None

SUMMARY = {
    "job_id": text_of("key"), "status": text_of("status"), "requester": text_of("requester"), "pipeline": text_of("pipeline"),
    "model": text_of("model"), "version": text_of("version"), "steps": number_of("steps"), "steps_done": number_of("steps_done"),
    "requested_at": time_of("requested_at"), "ended_at": time_of("ended_at"), "updated_at": time_of("updated_at"),
    "sequence": number_of("sequence"),
}  # fmt: skip


def upgrade() -> None:
    column = sa.Column("summary", sa.Text, sa.Computed(object_of(SUMMARY), persisted=True))
    op.add_column("job", column, schema="projection")
    op.execute("ALTER TABLE projection.job ALTER summary SET STORAGE MAIN")  # beside a large state it would be compressed
    newest = [sa.text("requested_at DESC"), sa.text("key DESC")]
    op.create_index("job_requester", "job", ["requester", *newest], schema="projection")
    op.create_index("job_model", "job", ["model", *newest], schema="projection")


def downgrade() -> None:
    op.drop_index("job_model", "job", schema="projection")
    op.drop_index("job_requester", "job", schema="projection")
    op.drop_column("job", "summary", schema="projection")
