"""Adds what the compacted topic of the latest states of models has."""

import sqlalchemy as sa
from alembic import op

revision = "registry_0020"
down_revision = "registry_0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_latest",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, comment="Of the model, as published."),
        sa.Column(
            "deployments", sa.Numeric, nullable=False, comment="Sum of the numbers of its deployments, as published."
        ),
        schema="operational",
        comment="Which state of each model is on the compacted topic.",
    )
    op.create_index("deployment_model", "deployment", ["model"], schema="projection")


def downgrade() -> None:
    op.drop_index("deployment_model", "deployment", schema="projection")
    op.drop_table("model_latest", schema="operational")
