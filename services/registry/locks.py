"""The numbers of the advisory locks that the registry takes in its database, beside those of `services.chassis.postgres.locks`."""

RECONCILER_LOCK = 7_253_011
LATEST_LOCK = 7_253_012
ERASING_LOCK = 7_253_013
SHADOW_PAIRS_LOCK = 7_253_014
"""Held for a transaction, by who stores pairs of answers."""
JUDGING_LOCK = 7_253_015
