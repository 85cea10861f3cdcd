"""Builds the orchestrator from its settings (composition root), without I/O."""

from schemas.topics import JOBS, PROGRESS, REQUESTS
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.orchestrator.api import router
from services.orchestrator.domain.job import JobDomain
from services.orchestrator.effects import JobEffects
from services.orchestrator.retention import removers
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.statements import REFERENCED_BY


def build(settings: OrchestratorSettings) -> Service:
    """Build the orchestrator."""
    runtime = Runtime(
        settings, "orchestrator", JobDomain(settings.policy), topics=(REQUESTS, JOBS, PROGRESS), effects=JobEffects()
    )
    runtime.keep(removers(runtime.engine, settings.retention))
    runtime.reference(REFERENCED_BY)
    return assemble(runtime, router=router(runtime, settings))
