"""Adds the pairs of answers of shadowed requests, and what judges said about them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0024"
down_revision = "registry_0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "judgement",
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
        sa.Column("deployment", sa.Text),
        sa.Column("rollout", sa.BigInteger),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("judgement_due_at", "judgement", ["due_at"], schema="projection", postgresql_where=due)
    op.create_index("judgement_deployment", "judgement", ["deployment", "rollout"], schema="projection")
    op.create_table(
        "shadow_pair",
        sa.Column("response", sa.Text, primary_key=True, comment="Id of the response that the caller got."),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("rollout", sa.BigInteger, nullable=False, comment="The generation that is rolled out."),
        sa.Column("percent", sa.Double, nullable=False, comment="The step."),
        sa.Column("pair", sa.Text, comment="AnswerPair as JSON; null once it is in an artifact."),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False, comment="On the database's clock."),
        schema="operational",
        comment="Answers of a canary and of the version before to the same requests, until a judge gets them or the rollout ends.",
    )
    step = ["deployment", "rollout", "percent"]
    op.create_index("shadow_pair_step", "shadow_pair", step, schema="operational")


def downgrade() -> None:
    op.drop_table("shadow_pair", schema="operational")
    op.drop_table("judgement", schema="projection")
