"""Holds the SQL of the orchestrator: what HTTP reads of jobs, and the latest progress of attempts, which lies beside the projection."""

from sqlalchemy import text

from services.orchestrator.domain.state import ENDED

# What HTTP reads: one statement per response, without locks. Answers show the row of a job only where it was requested or decided on.

_STORED = "CAST(state AS text) AS state, sequence, updated_at"
_IS_JOB = "key = $1 AND status IS NOT NULL"
"""Excludes rows that exist only because of facts about an unknown job."""

FIND = f"SELECT {_STORED} FROM job WHERE {_IS_JOB}"
"""Reads one job."""

FIND_NOW = f"SELECT clock_timestamp() AS now, {_STORED} FROM (SELECT) AS always LEFT JOIN job ON {_IS_JOB}"
"""Reads the database's clock, by which jobs are decided on, and one job; one row also where there is no such job."""

FIND_PROGRESS = f"""SELECT {_STORED}, ARRAY(SELECT at FROM progress WHERE job_id = $1 ORDER BY key) AS at,
       ARRAY(SELECT CAST(data AS text) FROM progress WHERE job_id = $1 ORDER BY key) AS data
       FROM job WHERE {_IS_JOB}"""
"""Reads one job with the latest progress of each of its attempts."""

FILTERS = {name: f"{name} = {{}}" for name in ("status", "requester", "model")}
"""The condition of each filter of the list of jobs, with {} for the value."""
ITEM, ROWS, TIME, KEY = "summary", "job", "requested_at", "key"
"""What the list of jobs shows of which rows, and its order; `serving.statements.page` composes the statement."""

CHANGED = """SELECT known.id, CAST(job.xmin AS text), told.mark, told.at, told.data,
       CASE WHEN CAST(job.xmin AS text) <> known.job THEN CAST(job.state AS text) END, job.sequence, job.updated_at
       FROM unnest($1::text[], $2::text[], $3::text[]) AS known(id, job, told)
       JOIN job ON job.key = known.id AND job.status IS NOT NULL
       CROSS JOIN LATERAL (
           SELECT coalesce(string_agg(CAST(xmin AS text), ',' ORDER BY key), '') AS mark,
                  array_agg(at ORDER BY key) AS at, array_agg(CAST(data AS text) ORDER BY key) AS data
           FROM progress WHERE job_id = known.id
       ) AS told
       WHERE CAST(job.xmin AS text) <> known.job OR told.mark <> known.told
       LIMIT $4"""
"""Reads those of the watched jobs that changed since they were seen. Whether a row changed is told by the transaction that wrote it
(`xmin`); the state is left out where only progress changed, because it is long."""

# The queue

OPEN_ATTEMPTS = """SELECT job.key AS job_id, step.key AS step, CAST(attempt.key AS int) AS attempt, planned.kind, planned.base_model,
       coalesce(job.requester, 'unknown') AS requester,
       coalesce(CAST(attempt.value #>> '{asked,priority}' AS int),
                CAST(job.state #>> '{accepted,request,priority}' AS int), 0) AS priority,
       CAST(attempt.value #>> '{asked,at}' AS timestamptz) AS requested_at,
       CAST(attempt.value #>> '{asked,not_before}' AS timestamptz) AS not_before,
       CAST(attempt.value #>> '{started,at}' AS timestamptz) AS started_at, attempt.value #>> '{started,worker}' AS worker,
       attempt.key <> '1' OR (SELECT count(*) FROM jsonb_object_keys(job.state -> 'attempts')) > 1 AS begun,
       CAST(progress.data ->> 'eta_seconds' AS double precision) AS eta_seconds, progress.at AS eta_at
       FROM job
       CROSS JOIN LATERAL jsonb_each(job.state -> 'attempts') AS step
       CROSS JOIN LATERAL jsonb_each(step.value) AS attempt
       CROSS JOIN LATERAL (
           SELECT plan ->> 'kind' AS kind, plan #>> '{settings,base_model}' AS base_model
           FROM jsonb_array_elements(job.state #> '{accepted,plan}') AS plan WHERE plan ->> 'name' = step.key
       ) AS planned
       LEFT JOIN progress ON progress.key = job.key || '/' || step.key || '/' || attempt.key
       WHERE job.status = 'running' AND attempt.value ->> 'asked' IS NOT NULL AND attempt.value ->> 'closed' IS NULL
         AND attempt.value ->> 'outcome' IS NULL"""
"""Reads every attempt of a running job that was requested and has no outcome."""

DURATIONS = """SELECT planned.kind, planned.base_model,
       extract(epoch FROM CAST(attempt.value #>> '{outcome,at}' AS timestamptz)
                          - CAST(attempt.value #>> '{started,at}' AS timestamptz))::double precision AS seconds
       FROM ((SELECT state FROM job WHERE status = 'completed' ORDER BY requested_at DESC, key DESC LIMIT $1)
             UNION ALL (SELECT state FROM job WHERE status = 'running' ORDER BY requested_at DESC, key DESC LIMIT $1)) AS recent
       CROSS JOIN LATERAL jsonb_each(recent.state -> 'attempts') AS step
       CROSS JOIN LATERAL jsonb_each(step.value) AS attempt
       CROSS JOIN LATERAL (
           SELECT plan ->> 'kind' AS kind, plan #>> '{settings,base_model}' AS base_model
           FROM jsonb_array_elements(recent.state #> '{accepted,plan}') AS plan WHERE plan ->> 'name' = step.key
       ) AS planned
       WHERE attempt.value #>> '{outcome,kind}' = 'completed' AND attempt.value ->> 'started' IS NOT NULL"""
"""Reads how long each completed step of the latest jobs took, from its first start to its outcome."""

NOW = "SELECT clock_timestamp()"
"""Reads the database's clock."""

# Progress

KEEP_LATEST = text(
    """INSERT INTO progress (key, job_id, at, data)
       SELECT key, job_id, at, CAST(data AS jsonb)
       FROM unnest(CAST(:keys AS text[]), CAST(:job_ids AS text[]), CAST(:at AS timestamptz[]), CAST(:data AS text[]))
            AS new(key, job_id, at, data)
       ON CONFLICT (key) DO UPDATE SET at = EXCLUDED.at, data = EXCLUDED.data WHERE progress.at < EXCLUDED.at"""
)
"""Keeps the newest progress of each attempt, since progress comes in any order. The keys are sorted, so that two transactions lock the
rows in one order."""

OLD_PROGRESS = f"""at < now() - make_interval(secs => :seconds) AND NOT EXISTS (
           SELECT FROM job WHERE job.key = progress.job_id AND job.status NOT IN ({", ".join(repr(status) for status in ENDED)}))"""
"""The condition for old progress of jobs that have ended, or that nobody knows."""

_WEIGHTS = ("adapter", "model")
_MADE = " UNION ALL ".join(
    f"SELECT jsonb_path_query(state, '$.attempts.*.*.outcome.result.outputs.{name}.sha256') #>> '{{}}'" for name in _WEIGHTS
)
REFERENCED_BY = {
    "job": f"""SELECT said FROM job CROSS JOIN LATERAL (
        SELECT found[1] AS said FROM regexp_matches(CAST(state AS text), '[0-9a-f]{{64}}', 'g') AS found
        EXCEPT SELECT said FROM ({_MADE}) AS made(said)
            WHERE status IN ('completed', 'cancelled') AND ended_at < clock_timestamp() - make_interval(secs => :seconds)
    ) AS kept"""
}
"""The digests that jobs reference: all that they name, but for the weights that steps of a completed or cancelled job made, some time after
its end. A failed job can be retried, and then goes on with what its steps made."""
