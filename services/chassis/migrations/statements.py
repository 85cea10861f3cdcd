"""Holds the SQL by which databases are created and migrations take turns; the migrations themselves are in `versions`."""

from sqlalchemy import TextClause, text

# Creating a database, on a connection to another database of the server

MAY_CREATE = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
"""Tells whether this role may create databases."""

EXISTS = "SELECT 1 FROM pg_database WHERE datname = $1"
"""Tells whether the server has a database of this name."""


def create_database(name: str) -> str:
    """Creates a database whose encoding holds every text, from the template that allows any encoding. It runs in no transaction."""
    return f"CREATE DATABASE {quoted(name)} ENCODING 'UTF8' TEMPLATE template0"


def quoted(name: str) -> str:
    """Return a name as SQL."""
    return '"' + name.replace('"', '""') + '"'


# Migrating

SET_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', :wait, false)")
"""Sets how long the session waits for `LOCK`, so that a long wait is an error instead of endless."""

LOCK = text("SELECT pg_advisory_lock(:lock)")
"""Waits for the lock that lets one process migrate at a time, and holds it until the session ends."""

RESET_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', '0', false)")
"""Lets the migrations wait for the tables as long as they must."""

IS_MIGRATED = text("SELECT to_regclass('operational.alembic_version') IS NOT NULL")
"""Tells whether a database was migrated before."""

REVISIONS = text("SELECT version_num FROM operational.alembic_version ORDER BY 1")
"""Reads the revisions that a database is at: the chassis' and the service's."""


def create_schema(name: str) -> TextClause:
    """Creates a schema, unless the database has it."""
    return text(f"CREATE SCHEMA IF NOT EXISTS {name}")
