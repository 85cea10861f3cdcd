"""The check of `doctor` that asks each service's database whether it is there and can carry the service."""

import asyncio
from collections.abc import Sequence

from schemas.steps import SERVICES
from services.chassis.migrations.migrate import require_known
from services.chassis.migrations.provision import look
from services.chassis.postgres.requirements import DatabaseRefused
from services.chassis.process.transient import described
from services.chassis.settings import ServiceSettings
from services.cli.finding import Finding

_SECONDS = 20.0
_CHECK = "database"
_REMEDY = "see docs/deployment.md, and check NEUROWEAVER_DATABASE_URL"


def databases(url: str | None) -> Finding:
    """Check whether every service's database answers, or can be created, and is suitable."""
    settings = ServiceSettings(database_url=url) if url else ServiceSettings()
    asked = [service for service in SERVICES if url or getattr(settings, f"{service}_database_url")]
    if not asked:
        return Finding(check=_CHECK, verdict="good", detail="none runs; `neuroweaver up` starts one")
    try:
        answers = asyncio.run(_ask(settings, asked))
    except Exception as error:
        refused = isinstance(error, DatabaseRefused)
        detail = str(error) if refused else f"no connection: {described(error)}"
        return Finding(check=_CHECK, verdict="mend", detail=detail, remedy=_REMEDY)
    return Finding(check=_CHECK, verdict="good", detail="; ".join(answers))


async def _ask(settings: ServiceSettings, services: Sequence[str]) -> list[str]:
    answers: dict[str, list[str]] = {}
    async with asyncio.timeout(_SECONDS):
        for service in services:
            facts = await look(settings, service)
            if facts is None:
                answers.setdefault("created at the first start", []).append(service)
                continue
            await require_known(settings, service)
            pooled = ", through a pooler" if facts.pooled else ""
            answers.setdefault(f"PostgreSQL {facts.version}, {facts.encoding}{pooled}", []).append(service)
    return [f"{answer}: {', '.join(names)}" for answer, names in answers.items()]
