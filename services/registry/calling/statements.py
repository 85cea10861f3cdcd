"""Holds the SQL of the table that leads callers."""

ROUTES = """SELECT key, CAST(state - 'history' AS text), clock_timestamp(), coalesce((SELECT CAST(aliases AS text) FROM model WHERE key = d.model), '{}'),
       coalesce((SELECT json_object_agg(slot, json_build_object('served', served, 'sha256', sha256, 'address', address,
           'headers', headers)) FROM deployment_slot WHERE deployment = d.key AND state = 'ready'), '{}')
       FROM deployment d WHERE open ORDER BY key"""
"""Reads every deployment with the aliases of its model and those of its slots that are ready."""
