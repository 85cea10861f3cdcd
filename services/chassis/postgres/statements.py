"""Holds the SQL by which sessions are set up and databases and sessions are examined. None of it reads a table of ours."""

from collections.abc import Mapping

from sqlalchemy import text


def set_session(settings: Mapping[str, str]) -> str:
    """Sets all settings of a session at once; it has no arguments, so no prepared statement is needed."""
    quoted = ((name, value.replace("'", "''")) for name, value in settings.items())
    return "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in quoted)


# Exclusive work

END_WHEN_SILENT = text(
    """SELECT set_config('idle_session_timeout', :idle, false),
               set_config('tcp_user_timeout', :idle, false), -- rows that the other side does not take
               set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
               set_config('tcp_keepalives_count', '3', false)"""
)
"""Has the server end this session, and free its locks, when its process or machine is silent for `:idle`."""

TAKE_LOCK = text("SELECT pg_try_advisory_lock(:lock)")
"""Takes an advisory lock until the session ends; tells whether it did, without waiting for who has it."""

READS_ONLY = text("SELECT current_setting('transaction_read_only') = 'on'")
"""Tells whether the session is read-only, as after a failover to a standby. It is the heartbeat of an exclusive session, too."""

READ_ONLY_SETTING = "SELECT current_setting('transaction_read_only')"
"""Reads the same as `on` or `off`, on the connection that listens."""

# Whether a database can serve a service

FACTS = (
    "SELECT current_setting('server_version_num')::int / 10000 AS version, current_setting('server_encoding') AS encoding"
)
"""Reads the server's main version and the encoding of the database."""

BACKEND = "SELECT pg_backend_pid()"
"""Reads the process that serves this session: a pooler reports another to the client, or changes it between transactions."""
