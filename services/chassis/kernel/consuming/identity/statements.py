"""Holds the SQL of log identity: which log the positions belong to, and which partitions stand."""

from sqlalchemy import text

KEPT = text("SELECT topic, cluster_id, topic_id FROM log_identity")
"""Reads the identity of each topic's log, as it was when the positions in it began."""

NOTE = text(
    """INSERT INTO log_identity (topic, cluster_id, topic_id) VALUES (:topic, :cluster_id, :topic_id)
       ON CONFLICT (topic) DO NOTHING"""
)
"""Keeps the identity of a topic's log when it is first read. A known identity stays, because the positions belong to that log."""

REPLACE = text(
    """INSERT INTO log_identity (topic, cluster_id, topic_id) VALUES (:topic, :cluster_id, :topic_id)
       ON CONFLICT (topic) DO UPDATE SET cluster_id = :cluster_id, topic_id = :topic_id, noted_at = now()"""
)
"""Keeps the identity of another log, in the transaction that moves the positions into it."""

REMOVE_POSITION = text("DELETE FROM position WHERE topic = :topic AND partition = :partition")
"""Removes the position of a partition that the other log does not have. The caller has locked it."""

STAND = text(
    """INSERT INTO standing (topic, partition, cause, "offset", next_offset, reason)
       VALUES (:topic, :partition, :cause, :offset, :next_offset, :reason)
       ON CONFLICT (topic, partition) DO UPDATE SET cause = :cause, "offset" = :offset, next_offset = :next_offset, reason = :reason,
           since = CASE WHEN standing.cause = :cause AND standing."offset" = :offset THEN standing.since ELSE now() END"""
)
"""Stores why a partition has stopped.

`since` stays if cause and offset are the same, so that it shows how long the partition has been stopped.
"""

GO_ON = text("DELETE FROM standing WHERE topic = :topic AND partition = :partition")
"""Deletes the stop of a partition."""

STANDING = text(
    """SELECT topic, partition, cause, "offset", standing.next_offset, reason, since FROM standing
       JOIN position USING (topic, partition) WHERE "offset" = position.next_offset ORDER BY topic, partition"""
)
"""Finds the partitions that have stopped at their present position. A row with another position is outdated."""
