"""Builds the registry from its settings (composition root), without I/O."""

from schemas.topics import JOBS, MODELS
from services.chassis.executor.dispatcher import worker_tasks
from services.chassis.executor.work import WorkEffects
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.registry.api import router
from services.registry.comparing.routes import comparing_router
from services.registry.domain.models import RegistryDomain
from services.registry.runner import registry_steps
from services.registry.settings import RegistrySettings


def build(settings: RegistrySettings) -> Service:
    """Build the registry."""
    runtime = Runtime(settings, "registry", RegistryDomain(), topics=(JOBS, MODELS), effects=WorkEffects())
    return assembled(runtime)


def assembled(runtime: Runtime) -> Service:
    """Return the registry with its routes and its workers."""
    tasks = worker_tasks(runtime, registry_steps(runtime.reads))
    return assemble(runtime, router=router(runtime), tasks=tasks, more=(comparing_router(runtime),))
