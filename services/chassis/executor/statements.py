"""Holds the SQL of the queue of work and of what an executor's retention asks about attempts.

Locks: the attempt's row before the work row wherever both are held (rule 4); claiming, renewing and releasing hold only the work row.
Times are those of the database's clock.
"""

from sqlalchemy import text

from services.chassis.executor.attempts import OPEN

CHANNEL = "work"
"""NOTIFY channel; payloads are keys of attempts that were requested, cancelled or released."""
_OPEN = ", ".join(repr(status) for status in OPEN)

ENQUEUE = text(
    """INSERT INTO work (key, priority, requested_at, not_before, cancel)
       SELECT key, priority, requested_at, clock_timestamp() + make_interval(secs => wait), cancel
       FROM unnest(CAST(:keys AS text[]), CAST(:priorities AS int[]), CAST(:requested_at AS timestamptz[]),
                   CAST(:waits AS double precision[]), CAST(:cancel AS boolean[])) AS new(key, priority, requested_at, wait, cancel)
       ON CONFLICT (key) DO UPDATE SET cancel = work.cancel OR EXCLUDED.cancel"""
)
"""Queues attempts. If one is queued already, only its cancel flag changes, and only to true. The wait before a retry is a duration by the
orchestrator's clock and is added to the time of this clock, so that the two clocks are never compared."""

REMOVE = text("DELETE FROM work WHERE key = ANY(CAST(:keys AS text[]))")
"""Removes attempts that have an outcome, in the transaction that has it; a lease on them ends with the row."""

WAKE = text(f"SELECT pg_notify('{CHANNEL}', key) FROM unnest(CAST(:keys AS text[])) AS key")
"""Wakes workers for these attempts when the transaction commits."""

REQUEUE_OPEN = text(
    f"""INSERT INTO work (key, priority, requested_at, not_before, cancel)
        SELECT key, priority, requested_at, clock_timestamp() + (not_before - requested_at), status = 'cancelling' FROM attempt
        WHERE status IN ({_OPEN}) ORDER BY key
        ON CONFLICT DO NOTHING"""
)
"""Queues every open attempt that is not queued, as after a lost database (rule 5). Rows that exist, and their leases, do not change."""

CLAIM = text(
    """WITH next AS MATERIALIZED (
           SELECT key FROM work
           WHERE (not_before IS NULL OR not_before <= clock_timestamp())
             AND (leased_until IS NULL OR leased_until <= clock_timestamp())
             AND (cancel OR NOT (:only_cancelled OR key = ANY(CAST(:without AS text[]))))
           ORDER BY priority DESC, requested_at, key LIMIT 1 FOR UPDATE SKIP LOCKED)
       UPDATE work SET lease = :lease, leases = leases + 1,
                       leased_until = clock_timestamp() + make_interval(secs => :seconds)
       FROM next WHERE work.key = next.key RETURNING work.key"""
)
"""Leases the next attempt that is due and that nobody holds: highest priority first, then oldest. It passes over locked rows, so that
workers neither wait for each other nor get the same attempt; MATERIALIZED has it look for exactly one."""

RENEW = text(
    """UPDATE work SET leased_until = clock_timestamp() + make_interval(secs => :seconds)
       WHERE key = :key AND lease = :lease RETURNING cancel"""
)
"""Prolongs a lease and tells whether a cancel was requested; no row where the lease was taken over or the attempt has ended."""

RELEASE = text("UPDATE work SET lease = NULL, leased_until = NULL WHERE key = :key AND lease = :lease RETURNING key")
"""Releases a lease, so that another worker can claim the attempt at once; no row where the lease is lost."""

HOLDS = text("SELECT key FROM work WHERE key = :key AND lease = :lease FOR UPDATE")
"""Asks whether a lease is still held, and locks the row, so that nobody takes it over before the transaction ends."""

UNLEASED = text(
    """SELECT key FROM work
       WHERE key = ANY(CAST(:keys AS text[])) AND (leased_until IS NULL OR leased_until <= clock_timestamp())"""
)
"""Finds those of some attempts that still wait for a worker."""

# What retention asks; without locks, since a step that begins meanwhile writes files that are too young to be removed.

STEPS = text(
    f"""SELECT job_id, step, bool_or(status IN ({_OPEN})) AS open,
               max(CAST(state ->> 'ended_at' AS timestamptz)) AS ended_at
        FROM attempt WHERE job_id = ANY(CAST(:jobs AS text[])) GROUP BY job_id, step"""
)
"""Tells of each step of these jobs whether an attempt at it is open, and when the last one ended."""

LEASES = text("SELECT lease FROM work WHERE lease IS NOT NULL")
"""Reads the tokens of all leases, which name the folders of attempts that run."""

OLDEST_START = text(
    f"""SELECT min(CAST(state ->> 'started_at' AS timestamptz)) FROM attempt
        WHERE status IN ({_OPEN})"""
)
"""Tells when the oldest open attempt began: it may use any download that was used since."""
