"""`neuroweaver migrate`: brings databases to the schema of this version without starting a service."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

from schemas.steps import SERVICES
from services.chassis.migrations.migrate import migrate
from services.cli.output import print_table
from services.cli.serve import settings_of
from services.cli.settings import CliSettings
from services.cli.stack import servers


def migrate_all(settings: CliSettings, services: Sequence[str] | None) -> None:
    """Migrate the databases one after the other and print the revisions of each."""
    named = settings.database_url
    with nullcontext((None, named)) if named else servers(settings) as (_, url):
        rows = []
        for name in services or SERVICES:
            revisions = asyncio.run(migrate(settings_of(name, database_url=url), name))
            rows.append((name, ", ".join(revisions)))
        print_table(("service", "revisions"), rows)
