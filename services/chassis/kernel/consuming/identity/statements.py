"""Holds the SQL of log identity: which log the positions belong to, and which partitions are stopped."""

from sqlalchemy import text

READ_IDENTITIES = text("SELECT topic, cluster_id, topic_id FROM log_identity")
"""Reads the identity of each topic's log as it was when the service first read it; without a lock."""

NOTE_IDENTITY = text(
    """INSERT INTO log_identity (topic, cluster_id, topic_id) VALUES (:topic, :cluster_id, :topic_id)
       ON CONFLICT (topic) DO NOTHING"""
)
"""Stores the identity of a topic's log when it is first read. A stored identity does not change, because the positions belong to that log."""

REPLACE_IDENTITY = text(
    """INSERT INTO log_identity (topic, cluster_id, topic_id) VALUES (:topic, :cluster_id, :topic_id)
       ON CONFLICT (topic) DO UPDATE SET cluster_id = :cluster_id, topic_id = :topic_id, noted_at = now()"""
)
"""Stores the identity of another log, in the transaction that moves the positions to it."""

DELETE_POSITION = text("DELETE FROM position WHERE topic = :topic AND partition = :partition")
"""Deletes the position of a partition that the other log does not have. The caller has locked the position."""

STORE_STOP = text(
    """INSERT INTO standing (topic, partition, cause, "offset", next_offset, reason)
       VALUES (:topic, :partition, :cause, :offset, :next_offset, :reason)
       ON CONFLICT (topic, partition) DO UPDATE SET cause = :cause, "offset" = :offset, next_offset = :next_offset, reason = :reason,
           since = CASE WHEN standing.cause = :cause AND standing."offset" = :offset THEN standing.since ELSE now() END"""
)
"""Stores why a partition is stopped.

`since` stays if cause and offset are the same, so that it shows how long the partition has been stopped.
"""

DELETE_STOP = text("DELETE FROM standing WHERE topic = :topic AND partition = :partition")
"""Deletes the stop of a partition, which is read again."""

READ_STOPS = text(
    """SELECT topic, partition, cause, "offset", standing.next_offset, reason, since FROM standing
       JOIN position USING (topic, partition) WHERE "offset" = position.next_offset ORDER BY topic, partition"""
)
"""Reads the stops at the present positions, without a lock. A stop at another position is out of date."""
