"""Alembic environment shared by all services: chassis tables and each service's own are two branches of one history."""
