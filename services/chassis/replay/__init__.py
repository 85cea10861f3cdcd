"""Verifies projections against the log, and rebuilds them or single rows while the service runs (design section 3, rule 7)."""
