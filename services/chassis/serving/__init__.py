"""Runs a service and its HTTP server: wiring, start, shutdown, routes, and limits on callers."""
