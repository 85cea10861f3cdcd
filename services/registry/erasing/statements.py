"""Holds the SQL of erasures: where rows may be, what is still to be removed or looked at, and which versions learnt from rows."""

from sqlalchemy import text

from services.registry.ledger.statements import USED_NOW

ALL_INDEXES = """SELECT key, sha256, CAST(state -> 'registered' -> 'row_index' AS text) FROM dataset
    WHERE registered_at IS NOT NULL ORDER BY registered_at DESC, key DESC"""
"""Reads all data sets with the indexes of their rows."""

ERASING = "SELECT key FROM dataset WHERE erasing ORDER BY key LIMIT $1"
"""Reads the data sets of which bytes are still to be removed."""

OF_DATASET = """SELECT CAST(d.state AS text), coalesce((SELECT CAST(json_agg(e.state -> 'told' ORDER BY e.erased_at, e.key) AS text)
                                       FROM erasure e WHERE e.dataset = d.key), '[]')
       FROM dataset d WHERE d.key = $1"""
"""Reads a data set with its erasures, the earliest first, as one snapshot."""

OF_SNAPSHOT = "SELECT key FROM dataset WHERE sha256 = $1 AND registered_at IS NOT NULL ORDER BY key"
"""Reads the data sets with a digest: the same rows may be registered under several names."""

ERASED = "SELECT CAST(state -> 'told' AS text) FROM erasure WHERE erased_at IS NOT NULL ORDER BY erased_at, key"
"""Reads all erasures, the earliest first."""

STORED = (
    """SELECT DISTINCT job_id, CAST(state -> 'use' -> 'outputs' AS text) FROM data_use WHERE stored = $1 ORDER BY job_id"""
)
"""Reads the digests of what steps stored with the rows of a data set, and their jobs."""

RESULTS = """SELECT CAST(state -> 'registered' -> 'lineage' -> 'results' AS text) FROM registration
       WHERE job_id = ANY($1) AND version IS NOT NULL ORDER BY key"""
"""Reads the results of the steps behind the versions of jobs."""

DATA_OF_VERSION = """WITH RECURSIVE behind(job_id, started_from, depth) AS (
           SELECT job_id, started_from, 0 FROM registration WHERE key = $1
           UNION SELECT r.job_id, r.started_from, behind.depth + 1 FROM registration r
               JOIN behind ON behind.started_from = r.model || '@' || r.version WHERE behind.depth < 50)
       SELECT DISTINCT d.key FROM behind JOIN data_use u ON u.job_id = behind.job_id JOIN dataset d ON d.sha256 = u.stored
       WHERE EXISTS (SELECT FROM erasure e WHERE e.dataset = d.key) ORDER BY d.key"""
"""Reads the data sets with erased rows that jobs stored which made a version or one that it continues from."""

LEARNERS = f"""WITH RECURSIVE saw(key, model, version, job_id, through, origin, step, depth) AS (
        SELECT r.key, r.model, r.version, r.job_id, CAST(NULL AS text), r.job_id, used.step, 0 FROM registration r
        JOIN unnest(CAST($1 AS text[]), CAST($2 AS text[])) AS used(job_id, step) ON r.job_id = used.job_id
        WHERE r.version IS NOT NULL AND r.state -> 'registered' -> 'lineage' -> 'results' ? used.step
        UNION
        SELECT r.key, r.model, r.version, r.job_id, saw.model || '@' || saw.version, saw.origin, saw.step, saw.depth + 1
        FROM registration r JOIN saw ON r.started_from = saw.model || '@' || saw.version
        WHERE r.version IS NOT NULL AND saw.depth < 50)
    SELECT key, model, version, job_id, through, origin, step, {USED_NOW}
    FROM saw ORDER BY depth, model, version, origin, step"""
"""Reads the versions that trainings made or that follow from them, each once for every training behind it, with who uses them now."""

LOOK = text("INSERT INTO erasure_check (kind, key) SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:keys AS text[]))")
"""Notes data that were stored, or versions that were registered, to be looked at for erased rows."""

TO_LOOK_AT = "SELECT id, kind, key FROM erasure_check ORDER BY id LIMIT $1"
"""Reads what is to be looked at."""

LOOKED_AT = text("DELETE FROM erasure_check WHERE id = :id")
"""Removes what was looked at."""
