"""Alembic's environment, which Alembic runs; the connection comes from `services.chassis.migrations.migrate`, not a
file."""

from alembic import context

config = context.config
context.configure(
    connection=config.attributes["connection"],
    target_metadata=config.attributes.get("target_metadata"),
    version_table="alembic_version",
    version_table_schema="operational",
    include_schemas=True,
)
context.run_migrations()
