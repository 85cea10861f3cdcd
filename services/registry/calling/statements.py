"""Holds the SQL of the table that leads callers, and of the counts of what those of a canary get."""

from sqlalchemy import text

ROUTES = """SELECT key, CAST(state - 'history' AS text), clock_timestamp(), coalesce((SELECT CAST(aliases AS text) FROM model WHERE key = d.model), '{}'),
       coalesce((SELECT json_object_agg(slot, json_build_object('served', served, 'sha256', sha256, 'address', address,
           'headers', headers, 'called', called)) FROM deployment_slot WHERE deployment = d.key AND state = 'ready'), '{}')
       FROM deployment d WHERE open ORDER BY key"""
"""Reads every deployment with the aliases of its model and those of its slots that are ready."""

STORE_TRAFFIC = text(
    """INSERT INTO deployment_traffic (deployment, rollout, percent, target, process, requests, errors, empty, latencies)
       SELECT s.deployment, s.rollout, s.percent, s.target, :process, s.requests, s.errors, s.empty, CAST(s.latencies AS jsonb)
       FROM unnest(CAST(:deployments AS text[]), CAST(:rollouts AS bigint[]), CAST(:percents AS double precision[]),
                   CAST(:targets AS boolean[]), CAST(:requests AS bigint[]), CAST(:errors AS bigint[]), CAST(:empty AS bigint[]),
                   CAST(:latencies AS text[]))
            AS s(deployment, rollout, percent, target, requests, errors, empty, latencies)
       ON CONFLICT (deployment, rollout, percent, target, process) DO UPDATE SET
           requests = EXCLUDED.requests, errors = EXCLUDED.errors, empty = EXCLUDED.empty, latencies = EXCLUDED.latencies"""
)
"""Stores the counts of a process so far; each has rows of its own."""
