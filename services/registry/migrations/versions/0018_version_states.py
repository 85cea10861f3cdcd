"""Versions have a state; those that were registered before are live."""

import sqlalchemy as sa
from alembic import op

revision = "registry_0018"
down_revision = "registry_0017"
branch_labels = None
depends_on = None

_ASKED = """jsonb_build_object('accepts_deprecated', false) || (state -> 'asked')"""


def upgrade() -> None:
    op.execute("""UPDATE projection.registration SET state = state || '{"state": "live", "state_reason": ""}'""")
    column = sa.Column(
        "version_state",
        sa.Text,
        sa.Computed("state ->> 'state'", persisted=True),
        comment="live, deprecated or archived.",
    )
    op.add_column("registration", column, schema="projection")
    newest = [sa.text("registered_at DESC"), sa.text("key DESC")]
    op.create_index("registration_version_state", "registration", ["version_state", *newest], schema="projection")
    op.execute(
        f"""UPDATE projection.promotion_request SET state = jsonb_set(state, '{{asked}}', {_ASKED})
            WHERE jsonb_typeof(state -> 'asked') = 'object'"""
    )


def downgrade() -> None:
    op.execute("UPDATE projection.promotion_request SET state = state #- '{asked,accepts_deprecated}'")
    op.drop_index("registration_version_state", "registration", schema="projection")
    op.drop_column("registration", "version_state", schema="projection")
    op.execute("UPDATE projection.registration SET state = state - 'state' - 'state_reason'")
