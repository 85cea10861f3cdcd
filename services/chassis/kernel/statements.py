"""Holds the SQL of positions, inbox, outbox and sweep, which `store` and `ticker` run.

Each folder has the SQL that its files run in a `statements.py` of its own. Statements name no schema, so that a replay can run them
on a shadow. Rule 4: positions are locked first, then every touched aggregate in the order of refs.
"""

from datetime import timedelta
from functools import cache

from sqlalchemy import TextClause, text

from services.chassis.kernel.tables import HEADER_COLUMNS

INBOX_WINDOW = timedelta(days=30)
"""A record is a producer's duplicate when it was appended at most this long after the first record of the same event."""
_MARGIN = timedelta(days=1)
"""The clocks of brokers differ, so the append times within a partition may go back a little."""
DUE_ROWS = 100
"""At most this many rows of an aggregate type are looked for at once, due or swept."""

INSERT_POSITION = text(
    "INSERT INTO position (topic, partition, next_offset) VALUES (:topic, :partition, 0) ON CONFLICT DO NOTHING"
)
"""Inserts the position of a partition that has none yet, so that there is a row to lock. An existing position stays as it is."""

READ_POSITIONS = text("SELECT topic, partition, next_offset FROM position")
"""Reads every position without a lock, to know where to seek: whoever applies records locks the position first."""

LOCK_POSITIONS = text(
    """SELECT topic, partition, next_offset, withheld FROM position
       WHERE (topic, partition) IN (SELECT * FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[])))
       ORDER BY topic, partition FOR UPDATE"""
)
"""Reads positions and locks them until the transaction ends, in one order, so that two transactions cannot wait for each other.
This lock is the fence: a process that lost the partition waits here, then sees that the position has moved."""

MOVE_POSITIONS = text(
    """UPDATE position SET next_offset = moved.next_offset
       FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]))
            AS moved(topic, partition, next_offset)
       WHERE position.topic = moved.topic AND position.partition = moved.partition"""
)
"""Sets each position to the next offset to apply. The rows are locked already, by `LOCK_POSITIONS` in the same transaction."""

_ANEW = f"EXCLUDED.appended_at > known.appended_at + interval '{INBOX_WINDOW.days} days'"
ENTER_INBOX = text(
    f"""INSERT INTO inbox AS known (source, id, identity, topic, partition, "offset", appended_at)
       SELECT * FROM unnest(CAST(:sources AS text[]), CAST(:ids AS text[]), CAST(:identities AS bytea[]), CAST(:topics AS text[]),
                            CAST(:partitions AS int[]), CAST(:offsets AS bigint[]), CAST(:appended_at AS timestamptz[]))
       ON CONFLICT (source, id, identity) DO UPDATE SET
           "offset" = CASE WHEN {_ANEW} THEN EXCLUDED."offset" ELSE known."offset" END,
           appended_at = CASE WHEN {_ANEW} THEN EXCLUDED.appended_at ELSE known.appended_at END
       RETURNING identity, "offset", appended_at"""
)
"""Enters one record for each identity and returns the record that counts: the one entered before, unless this one was appended more
than `INBOX_WINDOW` after it. A known row is updated and not left alone, because RETURNING shows only rows that were written; the
rows stay locked until the transaction ends."""

PRUNE_INBOX = text(
    f"""DELETE FROM inbox USING (SELECT topic, partition, max(appended_at) AS at FROM inbox GROUP BY topic, partition) newest
       WHERE inbox.topic = newest.topic AND inbox.partition = newest.partition
         AND inbox.appended_at < newest.at - interval '{(INBOX_WINDOW + _MARGIN).days} days'"""
)
"""Deletes the records that no duplicate can follow any more. Age is measured from the newest record of the partition and not from
now, so that a service that was stopped for long, or reads an old log again, still knows the duplicates."""

READ_OUTBOX = text(f"SELECT payload, {', '.join(HEADER_COLUMNS)} FROM outbox ORDER BY position")
"""Reads every own event that waits for the relay, in order and without a lock: a replay takes them in, too, since the rows have them."""

NOTIFY = text("SELECT pg_notify(:channel, :payload)")
"""Wakes the listeners of a channel when the transaction commits."""

INSERT_SWEEP = text("INSERT INTO sweep (aggregate, key) VALUES (:aggregate, :key) ON CONFLICT DO NOTHING")
"""Notes that a replay changed this row, so that the ticker asks `decide` about it once."""

READ_SWEEP = text(
    f"""SELECT key FROM sweep WHERE aggregate = :aggregate AND NOT (key = ANY(CAST(:waiting AS text[]))) LIMIT {DUE_ROWS}"""
)
"""Finds rows that a replay changed, without those that failed a moment ago. It takes no lock: each is locked in its own transaction."""

DELETE_SWEEP = text("DELETE FROM sweep WHERE aggregate = :aggregate AND key = :key")
"""Removes the note, in the transaction that decides about the row."""


@cache
def due_rows(table: str) -> TextClause:
    """Finds rows of an aggregate whose time has come by the database's clock, the longest due first, without those that failed a
    moment ago. It takes no lock: each is locked, and asked again whether it is due, in its own transaction."""
    return text(
        f"""SELECT key FROM {table} WHERE due_at <= clock_timestamp()
                            AND NOT (key = ANY(CAST(:waiting AS text[]))) ORDER BY due_at LIMIT {DUE_ROWS}"""
    )
