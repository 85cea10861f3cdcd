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
    """INSERT INTO work (key, priority, requested_at, not_before, cancel, requester, cores, memory_mb, device_mb, turn)
       SELECT new.key, new.priority, new.requested_at, clock_timestamp() + make_interval(secs => new.wait), new.cancel,
              new.requester, new.cores, new.memory_mb, new.device_mb,
              CASE WHEN new.begun THEN round.now
                   ELSE greatest(round.now, (SELECT max(turn) + 1 FROM work
                                             WHERE work.requester = new.requester AND work.priority = new.priority))
                        + row_number() OVER (PARTITION BY new.requester, new.priority, new.begun
                                             ORDER BY new.requested_at, new.key) - 1 END
       FROM unnest(CAST(:keys AS text[]), CAST(:priorities AS int[]), CAST(:requested_at AS timestamptz[]),
                   CAST(:waits AS double precision[]), CAST(:cancel AS boolean[]), CAST(:requesters AS text[]),
                   CAST(:begun AS boolean[]), CAST(:cores AS int[]), CAST(:memory_mb AS int[]), CAST(:device_mb AS int[]))
            AS new(key, priority, requested_at, wait, cancel, requester, begun, cores, memory_mb, device_mb)
       CROSS JOIN LATERAL (
           SELECT coalesce((SELECT max(turn) FROM work WHERE work.priority = new.priority AND lease IS NOT NULL),
                           (SELECT min(turn) FROM work WHERE work.priority = new.priority), 0) AS now
       ) AS round
       ON CONFLICT (key) DO UPDATE SET cancel = work.cancel OR EXCLUDED.cancel, priority = EXCLUDED.priority"""
)
"""Queues attempts. If one is queued already, only its priority and its cancel flag change, and the flag only to true. The wait before a retry is a duration by the
orchestrator's clock and is added to the time of this clock, so that the two clocks are never compared.

Turns make requesters take turns (start-time fair queueing, Goyal, Vin and Chen 1996, with every job of one size): a job gets the turn
after the last one of its requester, but no earlier one than that which is being served. A job that has begun, here or elsewhere, needs
no further turn."""

REMOVE = text("DELETE FROM work WHERE key = ANY(CAST(:keys AS text[]))")
"""Removes attempts that have an outcome, in the transaction that has it; a lease on them ends with the row."""

WAKE = text(f"SELECT pg_notify('{CHANNEL}', key) FROM unnest(CAST(:keys AS text[])) AS key")
"""Wakes workers for these attempts when the transaction commits."""

REQUEUE_OPEN = text(
    f"""INSERT INTO work (key, priority, requested_at, not_before, cancel, requester, turn)
        SELECT key, priority, requested_at, clock_timestamp() + (not_before - requested_at), status = 'cancelling',
               coalesce(state #>> '{{requested,requester}}', 'unknown'),
               row_number() OVER (PARTITION BY state #>> '{{requested,requester}}', priority ORDER BY requested_at, key) - 1
        FROM attempt
        WHERE status IN ({_OPEN}) ORDER BY key
        ON CONFLICT DO NOTHING"""
)
"""Queues every open attempt that is not queued, as after a lost database (rule 5). Rows that exist, and their leases, do not change."""

CLAIM = text(
    """WITH due AS MATERIALIZED (
           SELECT key, cancel, passed, priority, turn, requested_at,
                  cancel OR (least(coalesce(cores, :step_cores), :all_cores) <= :cores
                             AND least(coalesce(memory_mb, :step_memory_mb), :all_memory_mb) <= :memory_mb
                             AND (CAST(:device_mb AS int) IS NULL
                                  OR least(coalesce(device_mb, :all_device_mb), :all_device_mb) <= :device_mb)) AS fits
           FROM work
           WHERE (not_before IS NULL OR not_before <= clock_timestamp())
             AND (leased_until IS NULL OR leased_until <= clock_timestamp())
             AND (cancel OR NOT (:only_cancelled OR key = ANY(CAST(:without AS text[]))))
           ORDER BY priority DESC, turn, requested_at, key LIMIT :considered),
       placed AS (
           SELECT *, row_number() OVER (ORDER BY priority DESC, turn, requested_at, key) AS place FROM due),
       head AS MATERIALIZED (SELECT key, place, passed FROM placed WHERE NOT fits ORDER BY place LIMIT 1),
       next AS MATERIALIZED (
           SELECT work.key FROM work
           WHERE work.key = ANY(ARRAY(
                     SELECT placed.key FROM placed WHERE placed.fits AND (placed.cancel OR NOT EXISTS (
                         SELECT FROM head WHERE head.place < placed.place AND head.passed >= :passes))))
             AND (work.leased_until IS NULL OR work.leased_until <= clock_timestamp())
           ORDER BY priority DESC, turn, requested_at, key LIMIT 1 FOR UPDATE SKIP LOCKED),
       passed_over AS MATERIALIZED (
           SELECT work.key FROM work JOIN head ON head.key = work.key
           WHERE head.place < (SELECT placed.place FROM placed JOIN next ON next.key = placed.key)
           FOR UPDATE OF work SKIP LOCKED),
       counted AS (UPDATE work SET passed = work.passed + 1 FROM passed_over WHERE work.key = passed_over.key)
       UPDATE work SET lease = :lease, leases = leases + 1, passed = 0, host = :host, process = :process,
                       gpus = CASE WHEN work.device_mb = 0 THEN CAST(ARRAY[] AS int[]) ELSE CAST(:gpus AS int[]) END,
                       counted_at = clock_timestamp(), leased_until = clock_timestamp() + make_interval(secs => :seconds)
       FROM next WHERE work.key = next.key RETURNING work.key, work.cores, work.memory_mb, work.device_mb, work.gpus"""
)
"""Leases the next attempt that is due, that nobody holds and that fits what is free: highest priority first, then by turn, then the oldest.
It passes over locked rows, so that workers neither wait for each other nor get the same attempt; MATERIALIZED has it look for exactly
one. It considers only the first attempts in order, so its cost does not grow with the queue.

A larger attempt is not starved by small ones: the first that does not fit is passed over a limited number of times; then nothing after it
is leased until it fits. An attempt counts at most the whole machine, so it fits when nothing else runs."""

ALONE_ON_HOST = text("SELECT pg_advisory_xact_lock(hashtextextended(:host, 0))")
"""Has the processes of one machine claim one after the other, until the transaction ends."""

OTHERS_ON_HOST = text(
    """SELECT cores, memory_mb, device_mb, gpus FROM work
       WHERE lease IS NOT NULL AND leased_until > clock_timestamp() AND host = :host AND process <> :process"""
)
"""Reads what the attempts count that other processes of a machine run. Those of a process that was killed count until their leases
expire, since their children may run as long."""

FIRST_WAITING = text(
    """SELECT cores, memory_mb, device_mb FROM work
       WHERE (not_before IS NULL OR not_before <= clock_timestamp())
         AND (leased_until IS NULL OR leased_until <= clock_timestamp())
         AND (cancel OR NOT (:only_cancelled OR key = ANY(CAST(:without AS text[]))))
       ORDER BY priority DESC, turn, requested_at, key LIMIT 1"""
)
"""Reads what the attempt needs that comes next; no row where none is due that a claim considers."""

_COUNTED = "used_seconds + coalesce(extract(epoch FROM clock_timestamp() - counted_at), 0)"
"""For how long workers have held an attempt; the time between a worker that was lost and the next one does not count."""

RENEW = text(
    f"""UPDATE work SET leased_until = clock_timestamp() + make_interval(secs => :seconds),
                       used_seconds = {_COUNTED}, counted_at = clock_timestamp()
       WHERE key = :key AND lease = :lease RETURNING cancel"""
)
"""Prolongs a lease, counts its time, and tells whether a cancel was requested; no row where the lease was taken over or the attempt has ended."""

CHECKPOINT_WANTED = text("SELECT state #>> '{checkpoint_wanted,event_id}' FROM attempt WHERE key = :key")
"""Reads which request for a checkpoint of an attempt is the latest; null for none."""

RELEASE = text(
    f"""UPDATE work SET lease = NULL, leased_until = NULL, used_seconds = {_COUNTED}, counted_at = NULL
       WHERE key = :key AND lease = :lease RETURNING key"""
)
"""Releases a lease, so that another worker can claim the attempt at once; no row where the lease is lost."""

HOLDS = text(f"SELECT CAST({_COUNTED} AS double precision) FROM work WHERE key = :key AND lease = :lease FOR UPDATE")
"""Asks whether a lease is still held and for how long workers have held the attempt, and locks the row, so that nobody takes it over before the transaction ends."""

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

REFERENCED_BY = {"attempt": f"SELECT CAST(state AS text) FROM attempt WHERE status IS NULL OR status IN ({_OPEN})"}
"""The texts in which digests stand that attempts reference: those without an outcome need what they read. What the others made is referenced by
their job, in the orchestrator."""
