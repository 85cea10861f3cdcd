"""A model's state knows the highest version of each line, which are the versions with one MAJOR number; of the highest fifty."""

from alembic import op

revision = "registry_0012"
down_revision = "registry_0011"
branch_labels = None
depends_on = None

_NUMBERS = "CAST(string_to_array(version, '.') AS numeric[])"
LINES = f"""UPDATE projection.model SET state = state || jsonb_build_object('lines', (
    SELECT coalesce(jsonb_object_agg(line, version), '{{}}') FROM (
        SELECT DISTINCT ON (({_NUMBERS})[1]) split_part(version, '.', 1) AS line, version FROM projection.registration
        WHERE registration.model = model.key AND version IS NOT NULL
        ORDER BY ({_NUMBERS})[1] DESC, {_NUMBERS} DESC LIMIT 50) AS highest))"""


def upgrade() -> None:
    op.execute(LINES)


def downgrade() -> None:
    op.execute("UPDATE projection.model SET state = state - 'lines'")
