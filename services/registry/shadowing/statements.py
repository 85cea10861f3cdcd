"""Holds the SQL of pairs of answers: stored by the process that led the callers, and given to a judge by one process."""

from sqlalchemy import text

TAKE_TURN = text("SELECT pg_advisory_xact_lock(:lock)")
"""Lets one process store pairs at a time, so that none counts those of another twice or not at all."""

STORE = text(
    """INSERT INTO shadow_pair (response, deployment, rollout, percent, pair, stored_at)
       SELECT response, deployment, rollout, percent, pair, clock_timestamp() FROM (
           SELECT s.*, (SELECT count(*) FROM shadow_pair p WHERE
                   (p.deployment, p.rollout, p.percent) = (s.deployment, s.rollout, s.percent))
               + row_number() OVER (PARTITION BY s.deployment, s.rollout, s.percent ORDER BY s.response) AS number
           FROM unnest(CAST(:responses AS text[]), CAST(:deployments AS text[]), CAST(:rollouts AS bigint[]),
                       CAST(:percents AS double precision[]), CAST(:pairs AS text[]), CAST(:most AS bigint[]))
                AS s(response, deployment, rollout, percent, pair, most)) AS counted
       WHERE number <= most ON CONFLICT (response) DO NOTHING"""
)
"""Stores pairs, in each step as many as it may have."""

COUNTS = "SELECT deployment, rollout, percent, count(*), count(pair) FROM shadow_pair GROUP BY 1, 2, 3"
"""Counts the pairs of each step, and those that no judge has got."""

COUNTED = text(COUNTS)
"""The same for the session of who gives them to judges."""

WAITING = text(
    """SELECT response, pair FROM shadow_pair
       WHERE (deployment, rollout) = (:deployment, :rollout) AND pair IS NOT NULL
       ORDER BY stored_at, response LIMIT :most"""
)
"""Reads the earliest pairs of a rollout that no judge has got."""

GIVEN = text("UPDATE shadow_pair SET pair = NULL WHERE response = ANY(:responses) AND pair IS NOT NULL RETURNING response")
"""Forgets the texts of pairs that a judge gets; those that another process has given meanwhile are not returned."""

FORGET = text(
    """DELETE FROM shadow_pair p WHERE NOT EXISTS (
           SELECT FROM unnest(CAST(:deployments AS text[]), CAST(:rollouts AS bigint[])) AS now(deployment, rollout)
           WHERE (now.deployment, now.rollout) = (p.deployment, p.rollout))"""
)
"""Removes the pairs of rollouts that have ended."""

JUDGEMENTS = text(
    """SELECT CAST(state AS text) FROM judgement WHERE (deployment, rollout) IN (
           SELECT * FROM unnest(CAST(:deployments AS text[]), CAST(:rollouts AS bigint[])))"""
)
"""Reads what judges were asked and said in rollouts."""
