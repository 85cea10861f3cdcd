"""Builds the registry from its settings (composition root), without I/O."""

from collections.abc import Callable

from schemas.topics import DATASETS, JOBS, MODELS
from services.chassis.executor.dispatcher import worker_tasks
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.registry.api import router
from services.registry.calling.forwarding import Forwarder
from services.registry.calling.routes import calling_router
from services.registry.calling.routing import Routing
from services.registry.comparing.routes import comparing_router
from services.registry.datasets.routes import datasets_router
from services.registry.deploying.commands import DeploymentCommands
from services.registry.deploying.driver import Driver
from services.registry.deploying.drivers import choice_of, drivers_of
from services.registry.deploying.reconciler import Reconciler
from services.registry.deploying.routes import deployment_router
from services.registry.deploying.settings import ServingSettings
from services.registry.domain.models import RegistryDomain
from services.registry.effects import RegistryEffects
from services.registry.erasing.removing import RowRemover
from services.registry.erasing.routes import erasing_router
from services.registry.latest.publishing import LatestPublisher
from services.registry.ledger.routes import ledger_router
from services.registry.queries import ModelQueries
from services.registry.removing import FileRemovals
from services.registry.runner import registry_steps
from services.registry.settings import RegistrySettings
from services.registry.shadowing.judging import Judging
from services.registry.shadowing.retention import removers
from services.registry.shadowing.sending import Shadows
from services.registry.statements import REFERENCED_BY


def build(settings: RegistrySettings) -> Service:
    """Build the registry."""
    runtime = Runtime(settings, "registry", RegistryDomain(), topics=(JOBS, MODELS, DATASETS), effects=RegistryEffects())
    return assembled(runtime, lambda: drivers_of(settings), settings.serving)


def assembled(
    runtime: Runtime, driver_of: Callable[[], Driver] | None = None, serving: ServingSettings | None = None
) -> Service:
    """Return the registry with its routes and its workers; with a driver it serves what deployments want."""
    serving = serving or ServingSettings()
    commands = DeploymentCommands(runtime, ModelQueries(runtime.reads), choice_of(serving) if driver_of else None)
    routing = Routing(runtime.reads, runtime.notifications, runtime.engine)
    shadows = Shadows(routing, runtime.reads, runtime.engine, serving.keys)
    forwarder = Forwarder(routing, serving.keys, shadows)
    tasks = [
        *worker_tasks(runtime, registry_steps(runtime.reads)),
        forwarder.run,
        shadows.run,
        LatestPublisher(runtime).run,
        RowRemover(runtime).run,
    ]
    if driver_of is not None:
        tasks += [Reconciler(runtime, driver_of, commands.follow).run, Judging(runtime).run]
    runtime.keep(removers(runtime.settings))
    runtime.reference(REFERENCED_BY)
    more = (
        deployment_router(commands, serving),
        comparing_router(runtime),
        datasets_router(runtime),
        ledger_router(runtime),
        erasing_router(runtime),
    )
    return assemble(
        runtime,
        router=router(runtime),
        tasks=tasks,
        more=more,
        callers=(calling_router(forwarder),),
        owner=FileRemovals(runtime),
    )
