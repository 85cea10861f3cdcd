"""Holds the SQL of what HTTP reads of feedback steps."""

from sqlalchemy import text

ATTEMPTS_OF_JOB = text("SELECT CAST(state AS text) FROM attempt WHERE job_id = :job_id ORDER BY requested_at, key")
"""Reads the states of all attempts at a job's feedback steps, the earliest first and without a lock."""
