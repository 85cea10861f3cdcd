"""Runs the tally service as a process of its own until SIGTERM or Ctrl-C; settings come from the environment."""

import asyncio
from contextlib import suppress

import uvicorn

from examples.tally.app import NAME, TallySettings, build
from examples.tally.tables import create_tables
from schemas.topics import dead_letter_topic
from services.chassis.kafka import topics
from services.chassis.kernel import store
from services.chassis.migrations.migrate import ensure_migrated
from services.chassis.process.logging import configure
from services.chassis.process.redaction import hide
from services.chassis.serving.http import application
from services.chassis.serving.web.server import server_config
from services.chassis.serving.web.settings import HttpSettings


async def prepare(settings: TallySettings) -> None:
    """Create the service's database, its table and the topic of its dead letters if they are missing."""
    await ensure_migrated(settings, NAME)
    engine = store.connect(settings.database_url_for(NAME))
    try:
        await create_tables(engine)
    finally:
        await engine.dispose()
    await topics.apply(settings.cluster, [dead_letter_topic(NAME)])


async def run(settings: TallySettings, web: HttpSettings) -> None:
    """Serve until a signal ends the process; the service drains before it returns."""
    await prepare(settings)
    config = server_config(application([build(settings)], web), web, graceful_seconds=3)
    config.host, config.port = settings.http_host, settings.http_port
    await uvicorn.Server(config).serve()


def main() -> None:
    """Read the settings and run."""
    settings = TallySettings()
    hide(settings.secrets)
    configure(settings.log_level)
    with suppress(KeyboardInterrupt):
        asyncio.run(run(settings, HttpSettings()))


if __name__ == "__main__":
    main()
