"""Holds the SQL of dead letters: of `repository`, `limit`, `listing` and `copies`.

Whoever adds, applies or discards a dead letter, or changes what it waits for, has locked the position of its partition first, so that
no batch sees half of it. Another failure is noted without that lock, as is the copy to Kafka: neither frees anything.
"""

from sqlalchemy import TextClause, text

from schemas.bounds import RECORD_BYTES

PAGE = 500
"""At most this many blocked records are read at once."""
COPIES_PAGE = 100
"""At most this many records that wait for their copy are read at once."""

BLOCKED = "state IN ('failed', 'parked')"
"""The condition for records that block later ones of what they touch."""

_AT = 'topic = :topic AND partition = :partition AND "offset" = :offset'

_COLUMNS = """topic, partition, "offset", state, key, value, CAST(headers AS text) AS headers, event_type, event_id, correlation_id,
    error, stack, attempts, names, blocked_by, reason, discarded_by, appended_at, recorded_at"""
_SUMMARY = """topic, partition, "offset", state, substring(key FOR 1024) AS key, octet_length(value) AS value_bytes, event_type,
    event_id, correlation_id, left(error, 2000) AS error, attempts, blocked_by, reason, discarded_by, appended_at, recorded_at"""

# A record becomes a dead letter.

INSERT = text(
    """INSERT INTO dead_letter (topic, partition, "offset", state, key, value, headers, event_type, event_id, correlation_id,
                                error, stack, attempts, names, blocked_by, appended_at, published)
       VALUES (:topic, :partition, :offset, :state, :key, :value, CAST(:headers AS jsonb), :event_type, :event_id,
               :correlation_id, :error, :stack, :attempts, :names, :blocked_by, :appended_at, :state = 'parked')
       ON CONFLICT DO NOTHING"""
)
"""Stores a record with its bytes and the reason. A parked record counts as published, because only failures are copied to Kafka. A row
that exists already, such as that of a discarded record, does not change."""

LEARN = text(
    """INSERT INTO dead_letter (topic, partition, "offset", state, headers, event_type, event_id, error, reason, discarded_by,
                                appended_at, published)
       VALUES (:topic, :partition, :offset, 'discarded', '[]', :event_type, :event_id, :error, :reason, :discarded_by,
               :appended_at, true)
       ON CONFLICT DO NOTHING"""
)
"""Stores a discard that was read from the log, without the bytes of its record, which is never applied."""

# What a batch asks about its partition.

BLOCKING = text(
    f"""SELECT topic, partition, "offset", names FROM dead_letter
        WHERE {BLOCKED} AND topic = :topic AND partition = :partition AND names && CAST(:names AS text[])
        ORDER BY "offset" """
)
"""Finds the failed and parked records that block one of these aggregates, the first of each coming first."""

DISCARDED = text(
    """SELECT topic, partition, "offset" FROM dead_letter
       WHERE state = 'discarded' AND topic = :topic AND partition = :partition AND "offset" >= :first"""
)
"""Finds the discarded records from an offset on, which the batch must leave out."""

RECENT = text(
    """SELECT "offset" FROM dead_letter
       WHERE topic = :topic AND partition = :partition AND "offset" >= :first AND "offset" < :end
       AND (state = 'failed' OR state = 'unreadable' AND :unreadable)"""
)
"""Finds the open failures in a window of offsets, to see whether too many records fail; parked and discarded ones do not count."""

FLAG = text(
    f"""UPDATE position SET withheld = EXISTS (
            SELECT FROM dead_letter d WHERE d.topic = position.topic AND d.partition = position.partition
            AND (d.{BLOCKED} OR (d.state = 'discarded' AND d."offset" >= position.next_offset)))
        WHERE topic = :topic AND partition = :partition"""
)
"""Sets on the position whether a batch must run `BLOCKING` and `DISCARDED` at all, so that a partition without dead letters costs nothing.
It is run under the lock of the position; otherwise a batch could park a record meanwhile and lose the flag."""

# Retry and discard.

FIND = text(f"SELECT {_COLUMNS} FROM dead_letter WHERE {_AT}")
"""Reads one dead letter with its bytes, to show it; without a lock."""

FIND_LOCKED = text(f"SELECT {_COLUMNS} FROM dead_letter WHERE {_AT} FOR UPDATE")
"""Reads one dead letter and locks it until the transaction ends, so that nobody retries it while another discards it."""

READ_BLOCKED = text(
    f"""SELECT "offset", state, key, names, blocked_by FROM dead_letter
        WHERE {BLOCKED} AND topic = :topic AND partition = :partition AND "offset" > :after ORDER BY "offset" LIMIT {PAGE}"""
)
"""Reads the next page of the failed and parked records of a partition without their bytes, in order: what each blocks and waits for."""

FREED_PARTITIONS = text(
    """SELECT DISTINCT topic, partition FROM dead_letter waiting WHERE state = 'parked' AND NOT EXISTS (
           SELECT FROM dead_letter first WHERE first.topic = waiting.topic AND first.partition = waiting.partition
           AND first."offset" = waiting.blocked_by AND first.state IN ('failed', 'parked')) ORDER BY topic, partition"""
)
"""Finds partitions where a parked record waits for one that blocks no more: the process that handled that one ended too early."""

COUNT_PARKED = text("SELECT count(*) FROM dead_letter WHERE state = 'parked' AND topic = :topic AND partition = :partition")
"""Counts the parked records of a partition, for the answer to an operator."""

FAIL_AGAIN = text(
    f"UPDATE dead_letter SET state = 'failed', attempts = attempts + 1, error = :error, stack = :stack WHERE {_AT}"
)
"""Stores another failure of a record. A parked record becomes failed and blocks its aggregates itself."""

STILL_UNREADABLE = text(f"UPDATE dead_letter SET attempts = attempts + 1, error = :error WHERE {_AT}")
"""Stores another failure to read a record, which blocks nothing."""

DISCARD = text(
    f"""UPDATE dead_letter SET state = 'discarded', reason = :reason, discarded_by = :discarded_by, blocked_by = NULL, names = '{{}}'
        WHERE {_AT}"""
)
"""Marks a record as discarded. It blocks nothing and waits for nothing any more. The row remains, so that a replay leaves the record out."""

WAIT_FOR = text(
    """UPDATE dead_letter SET blocked_by = now.blocked_by
       FROM unnest(CAST(:offsets AS bigint[]), CAST(:blocked_by AS bigint[])) AS now("offset", blocked_by)
       WHERE topic = :topic AND partition = :partition AND dead_letter."offset" = now."offset" AND state = 'parked'"""
)
"""Sets which record each parked one waits for, after the one before was applied or discarded."""

REMOVE = text(f"DELETE FROM dead_letter WHERE {_AT}")
"""Deletes the row of a record that a retry applies, in the same transaction."""

# Offsets that belong to other records now, after the log was cut or made anew.

COUNT_OPEN_FROM = text(
    """SELECT count(*) FROM dead_letter
       WHERE topic = :topic AND partition = :partition AND "offset" >= :first AND state <> 'discarded'"""
)
"""Counts the records from an offset on that are neither retried nor discarded, which an operator has to decide about first."""

DELETE_DISCARDED_FROM = text(
    """DELETE FROM dead_letter
       WHERE topic = :topic AND partition = :partition AND "offset" >= :first AND state = 'discarded'"""
)
"""Deletes the discards from an offset on, so that other records at these offsets are not left out."""

DELETE_FROM = text('DELETE FROM dead_letter WHERE topic = :topic AND partition = :partition AND "offset" >= :first')
"""Deletes all dead letters from an offset on."""

# What operators and metrics read, without a lock.

COUNT_BY_STATE = text("SELECT state, count(*) FROM dead_letter GROUP BY state")
"""Counts the dead letters in each state."""

RECORD_IDS = text('SELECT topic, partition, "offset" FROM dead_letter')
"""Reads the ids of all dead letters, whose records a replay leaves out as long as the service does."""

NOT_DISCARDED = "state <> 'discarded'"
"""The condition of a list that asks for no state: an operator is done with what was discarded."""

BEHIND = '(topic, partition, "offset") > (:after_topic, :after_partition, :after_offset)'
"""The condition for records that come after the last one of the page before."""

PARKED_HERE = "state = 'parked' AND topic = :topic AND partition = :partition"
"""The condition for the parked records of a partition, which are shown behind the failed one."""

FILTERS = {
    "state": "state = :state",
    "type": "event_type = :type",
    "error": "position(lower(:error) IN lower(error)) > 0",
    "key": "key = :key",
    "since": "appended_at >= :since",
    "until": "appended_at < :until",
}
"""The condition of each filter of a list."""


def search(conditions: str) -> TextClause:
    """Lists dead letters that meet `conditions`, in the order of the log, with the beginning of long texts and without the bytes."""
    return text(f'SELECT {_SUMMARY} FROM dead_letter WHERE {conditions} ORDER BY topic, partition, "offset" LIMIT :limit')


# Copies to Kafka.

UNPUBLISH = text(f"UPDATE dead_letter SET published = false WHERE {_AT}")
"""Has a record that failed again copied to Kafka, also one that was parked before and is not there yet."""

UNPUBLISHED = text(
    f"""SELECT topic, partition, "offset", recorded_at FROM dead_letter
        WHERE NOT published AND (recorded_at, topic, partition, "offset") > (:recorded_at, :topic, :partition, :offset)
        ORDER BY recorded_at, topic, partition, "offset" LIMIT {COPIES_PAGE}"""
)
"""Reads the next page of records that wait for their copy, the oldest first and without their bytes, which may be large."""

READ_FOR_COPY = text(
    f"""SELECT topic, partition, "offset", error, attempts, appended_at,
               CASE WHEN octet_length(key) <= {RECORD_BYTES} THEN key END AS key, octet_length(key) AS key_bytes,
               encode(sha256(key), 'hex') AS key_sha256,
               CASE WHEN octet_length(value) <= {RECORD_BYTES} THEN value END AS value, octet_length(value) AS value_bytes,
               encode(sha256(value), 'hex') AS value_sha256,
               CASE WHEN octet_length(CAST(headers AS text)) <= {2 * RECORD_BYTES} THEN CAST(headers AS text) END AS headers,
               octet_length(CAST(headers AS text)) AS headers_bytes,
               encode(sha256(convert_to(CAST(headers AS text), 'UTF8')), 'hex') AS headers_sha256
        FROM dead_letter WHERE topic = :topic AND partition = :partition AND "offset" = :offset AND NOT published"""
)
"""Reads one record for its copy, with size and digest of each part. A part that fits in no record stays in the database."""

MARK_PUBLISHED = text(
    'UPDATE dead_letter SET published = true WHERE topic = :topic AND partition = :partition AND "offset" = :offset'
)
"""Notes that Kafka has acknowledged the copy."""

COUNT_UNPUBLISHED = text("SELECT count(*) FROM dead_letter WHERE NOT published")
"""Counts the records that wait for their copy, for the metric."""
