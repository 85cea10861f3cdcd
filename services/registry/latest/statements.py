"""Holds the SQL that finds the models of which the compacted topic has not the latest state."""

from sqlalchemy import text

from services.registry.statements import HIGHEST_OF

_SUM = "(SELECT coalesce(sum(d.sequence), 0) FROM deployment d WHERE d.model = m.key)"

CHANGED = text(
    f"""SELECT m.key, m.sequence, {HIGHEST_OF}, CAST(m.state -> 'aliases' AS text), m.state ->> 'correlation_id', {_SUM},
       coalesce((SELECT json_agg(json_build_object('name', d.key, 'version', d.state #>> '{{active,version}}',
           'sha256', d.state #>> '{{active,artifact,sha256}}', 'target', d.state #>> '{{target,version}}',
           'degraded', d.state #>> '{{trouble,reason}}' IS NOT NULL, 'sequence', d.sequence) ORDER BY d.key)
         FROM deployment d WHERE d.model = m.key AND d.open), '[]')
       FROM model m LEFT JOIN model_latest l ON l.model = m.key
       WHERE m.sequence > 0 AND (l.model IS NULL OR (l.sequence, l.deployments) <> (m.sequence, {_SUM}))
       ORDER BY m.key LIMIT :most"""
)
"""Finds models whose state is not published, by the numbers of their latest events and of those of their deployments, which only grow."""

PUBLISHED = text(
    """INSERT INTO model_latest (model, sequence, deployments) VALUES (:model, :sequence, :deployments)
       ON CONFLICT (model) DO UPDATE SET sequence = EXCLUDED.sequence, deployments = EXCLUDED.deployments"""
)
"""Notes that a state is published."""
