"""Holds the SQL of the tally: what HTTP reads."""

TALLY = "SELECT CAST(state AS text) FROM tally WHERE key = $1"
"""Reads the state of one job's tally, without a lock."""
