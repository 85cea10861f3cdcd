"""Holds the SQL by which a deployment is told from another."""

from sqlalchemy import text

DATABASE_IDENTITY = text(
    """SELECT (SELECT system_identifier FROM pg_control_system()) AS server,
              (SELECT oid FROM pg_database WHERE datname = current_database()) AS number"""
)
"""Reads what tells this database from every other, whatever URL names it: the server's identifier and the database's number there."""
