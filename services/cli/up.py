"""The whole system in one process on loopback: Kafka, PostgreSQL, topics and all four services, up and down together."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence

from schemas.steps import SERVICES
from services.chassis.kafka import topics
from services.chassis.kafka.settings import overrides
from services.chassis.process.health import Health
from services.chassis.process.logging import configure
from services.chassis.process.transient import wait_or_stop
from services.chassis.serving.service import Service
from services.chassis.serving.web.settings import HttpSettings
from services.chassis.settings import ServiceSettings
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.retention.run import Retention
from services.cli import serve
from services.cli.listening import address_of, listen
from services.cli.output import err, say
from services.cli.retention import ALL, STACK, unreferenced_artifacts
from services.cli.settings import CliSettings
from services.cli.stack import HOW_LONG, home_of, log_of
from services.cli.status import print_addresses
from services.devstack import retention as stack_retention
from services.devstack import state
from services.devstack.process import open_log
from services.devstack.stack import DevStack, running
from services.trainer.settings import TrainerSettings

_PATIENCE_SECONDS = 30.0
_WATCH_SECONDS = 1.0


def run(settings: CliSettings, *, bound: bool) -> None:
    """Run until SIGTERM or Ctrl-C, or, if `bound`, until standard input ends; then drain and stop everything."""
    signal.signal(signal.SIGTERM, _interrupt)
    os.umask(0o077)  # logs and artifacts contain data of jobs, so only their owner may read them
    if bound:
        threading.Thread(target=_end_with_input, daemon=True).start()
    door = HttpSettings()
    if state.owner(settings.home) is not None:
        raise state.StackBusy(settings.home)
    state.make_home(settings.home)
    log = open_log(log_of(settings))
    configure(settings.log_level, log)
    with log, listen(settings.http_host, settings.http_port) as listening:
        say(f"Starting Kafka, PostgreSQL and four services in {home_of(settings)}, which usually takes {HOW_LONG}.")
        with running(settings, say) as stack:
            say(f"Kafka and PostgreSQL answer; starting {', '.join(SERVICES)}")
            asyncio.run(_run_services(stack, listening, door))
            say("services have drained; stopping the servers")
    say("stopped")


async def _run_services(stack: DevStack, listening: socket.socket, door: HttpSettings) -> None:
    changes = await topics.apply(stack.cluster)
    conflicts = [change for change in changes if change.action == "conflict"]
    for change in conflicts:
        err.print(f"topic {change.topic}: {change.detail}", markup=False, soft_wrap=True)
    for action, words in (("create", "created"), ("configure", "configured")):
        if names := [change.topic for change in changes if change.action == action]:
            say(f"topics {words}: {len(names)}")
    if conflicts:
        say("`neuroweaver topics plan` shows what `topics apply` cannot change")
    shared = {**overrides(stack.cluster), "database_url": stack.database_url, "home": stack.home}
    services = [serve.build(name, _settings_of(name, shared, address_of(listening))) for name in SERVICES]
    policy, ending = RetentionSettings(), asyncio.Event()
    retention = Retention(STACK, stack_retention.removers(stack.home, stack.settings.cache, policy), policy.every_seconds)
    removing = asyncio.gather(retention.run(ending), _remove_artifacts(services, policy.every_seconds, ending))
    watching = asyncio.create_task(_watch(stack, services))
    announcing = asyncio.create_task(_announce(stack, services, address_of(listening)))
    await serve.serve(services, listening, door)
    for task in (announcing, watching):
        task.cancel()
    ending.set()
    await removing


async def _remove_artifacts(services: Sequence[Service], every_seconds: float, ending: asyncio.Event) -> None:
    """Remove what no service references at intervals, the first time when all of them run."""
    unreferenced = unreferenced_artifacts(services)
    assert unreferenced is not None
    if not await wait_or_stop(ending, every_seconds):
        await Retention(ALL, [unreferenced], every_seconds).run(ending)


def _settings_of(name: str, shared: Mapping[str, object], address: str) -> ServiceSettings:
    """Return the settings of one service; the trainer asks the judges of this stack unless the environment names others."""
    settings = serve.settings_of(name, **shared)
    if isinstance(settings, TrainerSettings) and settings.trainer_feedback_url is None:
        return settings.model_copy(update={"trainer_feedback_url": address})
    return settings


async def _announce(stack: DevStack, services: Sequence[Service], address: str) -> None:
    """Print the addresses when every service is ready, and what is missing if that takes long."""
    clock = asyncio.get_running_loop().time
    complain_at = clock() + _PATIENCE_SECONDS
    while not all(service.health.ready for service in services):
        if clock() > complain_at:
            complain_at = clock() + _PATIENCE_SECONDS
            for service in services:
                for words in _missing(service.health):
                    err.print(f"{service.name} is not ready: {words}", markup=False, soft_wrap=True)
        await asyncio.sleep(0.05)
    print_addresses(stack.announce(address))
    say("Ctrl-C drains and stops everything; the data remain")


def _missing(health: Health) -> list[str]:
    """Return why services are not ready; conditions that are not yet known are included only if there are no others."""
    known = [f"{name}: {reason}" for name, reason in health.missing.items() if name in health.conditions]
    return known or ([] if health.ready else ["it is starting"])


async def _watch(stack: DevStack, services: Sequence[Service]) -> None:
    """Report faults of the servers' data in every service's health; end the stack if its home is gone, because nobody could
    stop it."""
    for service in services:
        service.health.require("stack")
    said = None
    while True:
        trouble = await asyncio.to_thread(stack.trouble)
        for service in services:
            service.health.report("stack", trouble is None, trouble or "")
        if trouble != said:
            said = trouble
            err.print(trouble or "the servers work again", markup=False, soft_wrap=True)
        if not stack.holds_home:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        await asyncio.sleep(_WATCH_SECONDS)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
