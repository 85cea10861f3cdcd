"""What every process has: logs, metrics, health, redaction, and what to do about errors that pass."""
