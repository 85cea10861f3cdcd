"""Holds the SQL of replays: runs, fence, shadow, comparing, checks and retention.

A shadow has the projection's table names, so that the live statements fill it unchanged; only what works on both at once names schemas.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import TextClause, text

from services.chassis.kernel.tables import OPERATIONAL, PROJECTION

SHADOW = "shadow"
"""The schema in which a replay makes the projection again."""

# Runs: what each verify, rebuild and restore does and found. The session that writes it holds the advisory lock of replays.

OPEN_RUN = text(
    """INSERT INTO replay (id, kind, state, phase, done, total) VALUES (:id, :kind, 'running', 'starting', 0, 0)"""
)
"""Stores that a run begins."""

ABANDON_RUNS = text(
    """UPDATE replay SET state = 'failed', ended_at = now(), error = 'its process ended before it did' WHERE state = 'running'"""
)
"""Stores that all earlier runs have ended, since this one has the lock. A run that was frozen reads that and changes nothing."""

NOTE_PROGRESS = text("UPDATE replay SET phase = :phase, done = :done, total = :total WHERE id = :id")
"""Stores the progress of a run."""

CLOSE_RUN = text(
    """UPDATE replay SET state = :state, ended_at = now(), error = :error, result = CAST(:result AS jsonb) WHERE id = :id"""
)
"""Stores the outcome of a run."""

READ_RUNS = text(
    """SELECT id, kind, state, phase, done, total, started_at, ended_at, error, result FROM replay
       ORDER BY started_at DESC LIMIT :limit"""
)
"""Reads the newest runs."""

IS_RUNNING = text("SELECT state = 'running' FROM replay WHERE id = :id")
"""Asks whether no other run has begun since; the last statement of each transaction on a shadow or a projection."""

IS_LOCKED = text(
    """SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
)
"""Asks whether a session holds an advisory lock, without taking it: a run whose lock nobody holds was killed."""

# The fence: for a moment nothing is written.

SET_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '20s'")
"""Ends the fence with an error where a unit of work holds its rows for long, since all others wait for the fence."""

LOCK_ALL_POSITIONS = text("SELECT topic, partition, next_offset FROM position ORDER BY topic, partition FOR UPDATE")
"""Reads and locks all positions, in the order of `LOCK_POSITIONS`: batches wait from here on."""


def lock_tables(tables: Iterable[str]) -> TextClause:
    """Locks tables of the projection against writers, but not against readers: timers, workers and commands wait from here on."""
    names = ", ".join(f"{PROJECTION}.{table}" for table in sorted(tables))
    return text(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")


# The shadow: it is created, filled, and dropped or swapped in.

CREATE_SHADOW = text(f"CREATE SCHEMA {SHADOW}")
"""Creates the schema of the shadow, after `DROP_SHADOW`: one that exists was left by a run that was killed."""

DROP_SHADOW = text(f"DROP SCHEMA IF EXISTS {SHADOW} CASCADE")
"""Drops the shadow; it waits for transactions that write to it."""

PRIMARY_KEY = text(
    """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
       WHERE contype = 'p' AND conrelid = CAST(:table AS regclass)"""
)
"""Reads name and definition of a table's primary key, for `add_constraint`."""

INDEXES = text(
    """SELECT indexname, indexdef, indisprimary FROM pg_indexes
       JOIN pg_class c ON c.relname = indexname JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = schemaname
       JOIN pg_index ON indexrelid = c.oid
       WHERE schemaname = :schema AND tablename = :table ORDER BY indexname"""
)
"""Reads the definitions of a table's indexes, for `index_in_shadow`."""


def table_in_shadow(source: str, table: str) -> TextClause:
    """Creates an empty table like the live one, without its indexes, which would get other names than a migration expects."""
    return text(f"CREATE TABLE {SHADOW}.{table} (LIKE {source}.{table} INCLUDING ALL EXCLUDING INDEXES)")


def add_constraint(table: str, name: str, definition: str) -> TextClause:
    """Gives a table of the shadow the primary key of the live one, under the same name."""
    return text(f"ALTER TABLE {SHADOW}.{table} ADD CONSTRAINT {name} {definition}")


def index_in_shadow(source: str, definition: str) -> TextClause:
    """Gives a table of the shadow an index of the live one, under the same name."""
    return text(definition.replace(f" ON {source}.", f" ON {SHADOW}.", 1))


def analyze(table: str) -> TextClause:
    """Has PostgreSQL sample a table of the shadow that was filled just now, since it would plan statements on it as on an empty one."""
    return text(f"ANALYZE {SHADOW}.{table}")


ADD_INBOX = text(f"INSERT INTO {OPERATIONAL}.inbox SELECT * FROM {SHADOW}.inbox ON CONFLICT DO NOTHING")
"""Copies the inbox that a restore filled, so that duplicates of the records in the log are recognised."""

FORGET_DEAD_LETTERS = text(
    f"""DELETE FROM {OPERATIONAL}.inbox USING {OPERATIONAL}.dead_letter letter
        WHERE letter.state IN ('failed', 'parked') AND (inbox.topic, inbox.partition, inbox."offset")
                                                       = (letter.topic, letter.partition, letter."offset")"""
)
"""Removes records that became dead letters from the inbox, since they are not applied; a retry would take them for duplicates."""

LOCK_POSITIONS_TABLE = text("LOCK TABLE position IN EXCLUSIVE MODE")
"""Locks the positions of a database that may have none yet, against writers: one restore fills it."""


def sweep_changed(table: str) -> TextClause:
    """Notes every row whose state the shadow changes, so that the ticker asks `decide` about each once."""
    return text(
        f"""INSERT INTO sweep (aggregate, key)
                    SELECT '{table}', new.key FROM {SHADOW}.{table} new LEFT JOIN {PROJECTION}.{table} old USING (key)
                    WHERE old.state IS DISTINCT FROM new.state ON CONFLICT DO NOTHING"""
    )


def drop_shadow_table(table: str) -> TextClause:
    """Drops one of the shadow's own bookkeeping tables, which the projection has not."""
    return text(f"DROP TABLE {SHADOW}.{table}")


def keep_projection_as(old: str) -> TextClause:
    """Renames the live projection. Until the transaction of the swap commits, everybody else finds it under its name."""
    return text(f"ALTER SCHEMA {PROJECTION} RENAME TO {old}")


SHADOW_TO_PROJECTION = text(f"ALTER SCHEMA {SHADOW} RENAME TO {PROJECTION}")
"""Makes the shadow the live projection."""

OLD_VERSIONS = text("SELECT nspname FROM pg_namespace WHERE nspname LIKE :pattern ORDER BY nspname")
"""Finds the schemas of earlier projections; their names end in the time, so that the oldest comes first."""


def drop_schema(name: str) -> TextClause:
    """Drops an earlier projection. It fails where another process was faster."""
    return text(f"DROP SCHEMA {name} CASCADE")


# Rows: compared, counted, made anew.

START_SNAPSHOT = text("SELECT 1")
"""Fixes the snapshot of a repeatable read, which PostgreSQL takes with the first statement; run while the fence stands."""


def _rows(schema: str, table: str, columns: Sequence[str]) -> str:
    return f"(SELECT {', '.join(columns)} FROM {schema}.{table} WHERE created_at IS NOT NULL)"


def digest(schema: str, table: str, columns: Sequence[str]) -> TextClause:
    """Counts the rows of a table and sums two 64-bit hashes of each, in any order; rows that no event created are left out."""
    sums = ", ".join(f"coalesce(sum(hashtextextended(CAST(t AS text), {seed})), 0)" for seed in (0, 1))
    return text(f"SELECT count(*), {sums} FROM {_rows(schema, table, columns)} t")


def differences(live: str, replayed: str, table: str, columns: Sequence[str], limit: int) -> TextClause:
    """Counts the rows in which two versions of a table differ, and reads the first of them by key."""
    return text(
        f"""SELECT count(*) OVER (), coalesce(l.key, r.key) AS key, CAST(to_jsonb(l) AS text), CAST(to_jsonb(r) AS text)
                FROM {_rows(live, table, columns)} l FULL JOIN {_rows(replayed, table, columns)} r ON l.key = r.key
                WHERE to_jsonb(l) IS DISTINCT FROM to_jsonb(r) ORDER BY coalesce(l.key, r.key) COLLATE "C" LIMIT {limit}"""
    )


def row_as_text(table: str) -> TextClause:
    """Reads one live row as text, to see whether the replay of that row changed it."""
    return text(f"SELECT CAST(t AS text) FROM {PROJECTION}.{table} t WHERE key = :key")


def delete_row(table: str) -> TextClause:
    """Deletes a live row of which the log says nothing."""
    return text(f"DELETE FROM {PROJECTION}.{table} WHERE key = :key")


def measure_table(table: str) -> TextClause:
    """Counts the rows of a table and reads the time of the newest event, for the status."""
    return text(f"SELECT count(*), max(updated_at) FROM {table}")


# Room: what a shadow needs, what an earlier projection takes.

SCHEMA_BYTES = text(
    """SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
       WHERE nspname = :schema AND relkind = 'r'"""
)
"""Measures the tables of a schema with their indexes and large values."""

DATA_DIRECTORY = text("SHOW data_directory")
"""Reads where the server keeps its files, to see whether the disk has room; a role without the right to know gets an error."""

# Retention: what nothing needs any more, by the database's clock.

NOW = text("SELECT now()")
"""Reads the database's clock, by which earlier projections age."""

_UNNEEDED = """state = 'discarded' AND published AND (value IS NOT NULL OR stack IS NOT NULL OR headers <> '[]')
              AND recorded_at < now() - make_interval(secs => :seconds)"""
_LETTER_BYTES = "coalesce(octet_length(value), 0) + octet_length(CAST(headers AS text)) + coalesce(octet_length(stack), 0)"

COUNT_DISCARDED = text(f"SELECT count(*), coalesce(sum({_LETTER_BYTES}), 0) FROM dead_letter WHERE {_UNNEEDED}")
"""Counts what `EMPTY_DISCARDED` would empty, with its bytes."""

EMPTY_DISCARDED = text(
    f"""WITH going AS (SELECT topic, partition, "offset", {_LETTER_BYTES} AS size FROM dead_letter WHERE {_UNNEEDED}
                                   FOR UPDATE SKIP LOCKED)
                    UPDATE dead_letter l SET value = NULL, headers = '[]', stack = NULL FROM going
                    WHERE l.topic = going.topic AND l.partition = going.partition AND l."offset" = going."offset"
                    RETURNING going.size"""
)
"""Removes the content of old discarded dead letters, of which the topic has a copy. The rows stay, since every later replay has to
leave their records out. It passes over locked rows: the next run finds them."""

OLD_RUNS = """state <> 'running' AND (ended_at < now() - make_interval(secs => :seconds) OR id IN
              (SELECT id FROM replay ORDER BY started_at DESC OFFSET :count))"""
"""The condition for runs that ended long ago or are none of the newest."""


def drop_old_version(name: str) -> TextClause:
    """Drops an earlier projection, unless another process was faster."""
    return text(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


def count_rows(table: str, where: str) -> TextClause:
    """Counts the rows that `delete_rows` would delete, with their bytes."""
    return text(f"SELECT count(*), coalesce(sum(pg_column_size({table}.*)), 0) FROM {table} WHERE {where}")


def delete_rows(table: str, where: str) -> TextClause:
    """Deletes the rows that meet a condition and returns the bytes of each."""
    return text(f"DELETE FROM {table} WHERE {where} RETURNING pg_column_size({table}.*)")


# Which artifacts the rows reference

TABLES = text(
    f"""SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('{PROJECTION}', '{OPERATIONAL}') ORDER BY schemaname, tablename"""
)
"""Lists the tables of a service."""

REFERENCED_BY = {
    "inbox": "SELECT '' WHERE false",
    "dead_letter": "SELECT encode(value, 'escape') FROM dead_letter WHERE state <> 'discarded'",
}
"""By table of every service: the query of the texts in which digests stand that its rows reference. The inbox has digests of events."""


def whole_rows(schema: str, table: str) -> str:
    """Returns the query of every row as one text."""
    return f"SELECT CAST(kept AS text) FROM {schema}.{table} AS kept"


def digests_in(query: str) -> TextClause:
    """Returns the digests in the texts of a query, each once."""
    return text(
        f"""SELECT DISTINCT found[1] FROM ({query}) AS texts(said), regexp_matches(said, '[0-9a-f]{{64}}', 'g') AS found"""
    )
