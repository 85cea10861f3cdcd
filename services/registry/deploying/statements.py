"""Holds the SQL of deployments: what the reconciler compares, what a driver observed, and where callers are led.

What a driver observed is operational: no rebuild changes it, and no event has it. Its times are those of the database's clock.
"""

from sqlalchemy import text

CHANNEL = "deployments"
"""NOTIFY channel; payloads are names of deployments whose wish or state changed."""

OPEN = text("SELECT key, CAST(state - 'history' AS text), clock_timestamp() FROM deployment WHERE open ORDER BY key")
"""Reads every deployment that somebody wants, and the time."""

FOLLOWERS = text(
    """SELECT d.key FROM deployment d JOIN model m ON m.key = d.model
       WHERE d.open AND d.state #> '{wish,follow}' = 'true'
         AND m.aliases ->> (d.state #>> '{wish,alias}') <> d.state #>> '{wish,version}' ORDER BY d.key"""
)
"""Finds the deployments whose alias names another version than they want. An alias that was removed leaves them as they are."""

OBSERVED = text(
    """WITH seen AS (
           SELECT * FROM unnest(CAST(:deployments AS text[]), CAST(:slots AS text[]), CAST(:served AS text[]),
               CAST(:digests AS text[]), CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:messages AS text[]),
               CAST(:addresses AS text[]), CAST(:headers AS text[]), CAST(:since AS timestamptz[]),
               CAST(:called AS text[]))
           AS s(deployment, slot, served, sha256, state, reason, message, address, headers, since, called)),
       gone AS (DELETE FROM deployment_slot old WHERE NOT EXISTS (
           SELECT FROM seen WHERE (seen.deployment, seen.slot) = (old.deployment, old.slot)))
       INSERT INTO deployment_slot
           (deployment, slot, served, sha256, state, reason, message, address, headers, since, called, observed_at)
       SELECT deployment, slot, served, sha256, state, reason, message, address, CAST(headers AS jsonb), since, called,
              clock_timestamp() FROM seen
       ON CONFLICT (deployment, slot) DO UPDATE SET served = EXCLUDED.served, sha256 = EXCLUDED.sha256,
           state = EXCLUDED.state, reason = EXCLUDED.reason, message = EXCLUDED.message, address = EXCLUDED.address,
           headers = EXCLUDED.headers, since = EXCLUDED.since, called = EXCLUDED.called,
           observed_at = EXCLUDED.observed_at"""
)
"""Replaces what was observed of all slots."""

TRAFFIC = text(
    "SELECT deployment, rollout, percent, target, requests, errors, empty, CAST(latencies AS text) FROM deployment_traffic"
)
"""Reads what the callers of canaries got, as each process counted it."""

FORGET_TRAFFIC = text(
    """DELETE FROM deployment_traffic t WHERE NOT EXISTS (
           SELECT FROM unnest(CAST(:deployments AS text[]), CAST(:rollouts AS bigint[])) AS now(deployment, rollout)
           WHERE (now.deployment, now.rollout) = (t.deployment, t.rollout))"""
)
"""Removes the counts of rollouts that have ended."""

NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', :name)")
"""Wakes the reconciler and those who lead callers when the transaction commits."""

_SLOTS = """coalesce((SELECT json_agg(json_build_object('slot', slot, 'served', served, 'sha256', sha256, 'state', state,
       'reason', reason, 'message', message, 'since', since, 'observed_at', observed_at) ORDER BY slot)
       FROM deployment_slot WHERE deployment = key), '[]')"""

_SAID = """coalesce((SELECT json_agg(j.state) FROM judgement j WHERE j.deployment = deployment.key
       AND j.rollout = CAST(deployment.state #>> '{target,generation}' AS bigint)), '[]')"""

SHOWN = f"""SELECT key, CAST(state AS text), sequence, CAST({_SLOTS} AS text), clock_timestamp(), CAST({_SAID} AS text) FROM deployment
       WHERE key = $1 AND state ->> 'wish' IS NOT NULL"""
"""Reads one deployment, what was observed of its slots, and what judges said of what it rolls out."""

LISTED = f"""SELECT key, CAST(state - 'history' AS text), sequence, CAST({_SLOTS} AS text), clock_timestamp(),
       CAST({_SAID} AS text) FROM deployment
       WHERE open ORDER BY key"""
"""Reads every deployment that somebody wants, alike but for what happened to it."""

COUNT_OPEN = text("SELECT count(*) FROM deployment WHERE open")
"""Counts the deployments that somebody wants."""
