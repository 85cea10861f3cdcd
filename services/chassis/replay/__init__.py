"""Verifies projections against the log, and rebuilds them or single rows while the service runs (rule 7)."""
