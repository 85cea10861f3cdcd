"""Holds the SQL of the search for who saw a row: one statement per question, without locks."""

SEARCHED = """SELECT key, sha256, CAST(state -> 'registered' -> 'row_index' AS text) FROM dataset
    WHERE registered_at IS NOT NULL AND ($1::text IS NULL OR name = $1) ORDER BY registered_at DESC, key DESC LIMIT $2"""
"""Reads the newest data sets, of one name if $1 is not null, with their indexes."""

TRAININGS = """SELECT CAST(t.state -> 'use' AS text), CAST(p.state -> 'use' -> 'outputs' AS text),
       (SELECT CAST(coalesce(jsonb_agg(o.state -> 'use' -> 'outputs'), '[]') AS text) FROM data_use o
        WHERE o.job_id = p.job_id AND o.stored IS NOT NULL)
    FROM data_use p JOIN data_use t ON t.job_id = p.job_id
    WHERE p.stored = $1 AND t.state -> 'use' ->> 'ledger' IS NOT NULL ORDER BY p.used_at DESC, p.key DESC, t.key LIMIT $2"""
"""Reads the trainings of the jobs that stored a data set, with the digests of what the job's step stored, and of what all of its
steps of kind prepare stored."""

USED_NOW = """coalesce((SELECT CAST(named -> version AS text) FROM model m WHERE m.key = saw.model), '[]'),
           array(SELECT d.key FROM deployment d WHERE d.open AND d.state -> 'active' ->> 'model' = saw.model
                 AND d.state -> 'active' ->> 'version' = saw.version ORDER BY d.key)"""
"""The aliases, as JSON, and the deployments that name or serve a version of `saw` now."""

VERSIONS = f"""WITH RECURSIVE saw(model, version, through, depth) AS (
        SELECT r.model, r.version, CAST(NULL AS text), 0 FROM registration r
        JOIN unnest(CAST($1 AS text[]), CAST($2 AS text[])) AS used(job_id, step) ON r.job_id = used.job_id
        WHERE r.version IS NOT NULL AND r.state -> 'registered' -> 'lineage' -> 'results' ? used.step
        UNION
        SELECT r.model, r.version, r.started_from, saw.depth + 1 FROM registration r
        JOIN saw ON r.started_from = saw.model || '@' || saw.version WHERE r.version IS NOT NULL AND saw.depth < 50)
    SELECT model, version, min(through), min(depth), {USED_NOW}
    FROM saw GROUP BY model, version ORDER BY min(depth), model, version LIMIT $3"""
"""Reads the versions that a step of a job made or that it is in the lineage of, and those that started from one of them, with the aliases
that name them and the deployments that serve them now."""
