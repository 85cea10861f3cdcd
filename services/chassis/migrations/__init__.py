"""Migrates databases with Alembic, for all services: the chassis' tables and each service's own are two branches."""
