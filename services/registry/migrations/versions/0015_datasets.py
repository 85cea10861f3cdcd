"""Adds the rows of data sets, and to versions the digest of their data set. The data of earlier jobs are not registered."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from services.chassis.postgres.summaries import object_of, text_of, time_of

revision = "registry_0015"
down_revision = "registry_0014"
branch_labels = None
depends_on = None

_MADE = "state -> 'registered'"
ITEM = {
    "id": text_of("key"), "name": text_of("name"), "sha256": text_of("sha256"), "registered_at": time_of("registered_at"),
    "registered_by": text_of("registered_by"), "job_id": text_of("job_id"), "licence": text_of("licence"),
    "dataset_sha256": text_of("dataset_sha256"), "rows": f"coalesce(CAST({_MADE} -> 'rows' AS text), '{{}}')",
    "reference": text_of(f"{_MADE} ->> 'reference'"), "source": text_of(f"{_MADE} ->> 'source'"),
}  # fmt: skip
DATASET = "split_part(state -> 'registered' -> 'lineage' ->> 'dataset', '@', 2)"
NEWEST = [sa.text("registered_at DESC"), sa.text("key DESC")]


def upgrade() -> None:
    op.create_table(
        "dataset",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("state", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.Column("offsets", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("own_event_id", sa.Text),
        sa.Column(
            "own_ids",
            sa.Text,
            nullable=False,
            server_default=sa.text("''"),
            comment="Endings of the ids of the last own events.",
        ),
        *(sa.Column(name, sa.Text) for name in ("name", "sha256", "dataset_sha256", "licence", "job_id", "registered_by")),
        sa.Column("registered_at", sa.DateTime(timezone=True)),
        sa.Column("item", sa.Text, sa.Computed(object_of(ITEM), persisted=True), comment="DatasetSummary as JSON."),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("dataset_due_at", "dataset", ["due_at"], schema="projection", postgresql_where=due)
    op.create_index("dataset_newest", "dataset", NEWEST, schema="projection")
    for name in ("name", "licence", "job_id", "registered_by"):
        op.create_index(f"dataset_{name}", "dataset", [name, *NEWEST], schema="projection")
    op.create_index("dataset_digest", "dataset", ["sha256"], schema="projection")
    comment = "Digest under which its data set is registered; null where that is not known."
    column = sa.Column("dataset", sa.Text, sa.Computed(DATASET, persisted=True), comment=comment)
    op.add_column("registration", column, schema="projection")
    op.create_index("registration_dataset", "registration", ["dataset", *NEWEST], schema="projection")


def downgrade() -> None:
    """The rows of the earlier release come from the log: run its `neuroweaver projections rebuild registry`."""
    op.drop_index("registration_dataset", "registration", schema="projection")
    op.drop_column("registration", "dataset", schema="projection")
    op.drop_table("dataset", schema="projection")
