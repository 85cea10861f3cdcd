"""Holds the SQL of the relay. It runs on the session that holds the advisory lock of the relay, so that nobody else removes rows."""

from sqlalchemy import text

from services.chassis.kernel.tables import HEADER_COLUMNS

ROWS = 1000
"""At most this many own events are read at once."""

_LEFT = f"""SELECT position, aggregatetype, aggregateid, payload, {", ".join(HEADER_COLUMNS)} FROM outbox
        WHERE position > :after AND NOT (aggregateid = ANY(CAST(:blocked AS text[])))"""
READ = text(f"{_LEFT} ORDER BY position LIMIT {ROWS}")
"""Reads the next own events in order, without those of blocked keys. `:after` spares the scan over rows that were removed already."""

REMOVE = text("DELETE FROM outbox WHERE position = ANY(CAST(:positions AS bigint[]))")
"""Removes the own events that Kafka has acknowledged."""

REMOVE_AND_READ = text(
    f"""WITH removed AS (DELETE FROM outbox WHERE position = ANY(CAST(:positions AS bigint[])))
        {_LEFT} AND NOT (position = ANY(CAST(:positions AS bigint[]))) ORDER BY position LIMIT {ROWS}"""
)
"""`REMOVE` and `READ` in one round trip. The reading part does not see the removal of the other, so that it leaves these rows out itself."""

SNAPSHOT = text(
    """SELECT CAST(CAST(pg_snapshot_xmin(s) AS text) AS bigint) AS xmin, CAST(CAST(pg_snapshot_xmax(s) AS text) AS bigint) AS xmax
       FROM pg_current_snapshot() AS s"""
)
"""Reads the lowest transaction id that is still active and the first that is not assigned, to know which positions can still appear."""

WAITING = text(
    """SELECT count(*) AS rows, min(position) AS first,
              extract(epoch FROM clock_timestamp() - CAST(min(ce_time) AS timestamptz)) AS seconds FROM outbox"""
)
"""Measures number and age of the own events that wait, by the database's clock; a process that does not relay asks it, too."""
