"""The numbers of the advisory locks that the chassis takes in the database of each service; those of a service follow, from 7_253_011 on."""

MIGRATION_LOCK = 7_253_001
RELAY_LOCK = 7_253_002
REPLAY_LOCK = 7_253_003
ARTIFACTS_LOCK = 7_253_004
"""Held by who removes artifacts, in the database of the service that owns the store."""
