"""Implements executor services: attempts are aggregates, workers hold leases, child processes do the work."""
