"""Commands that need the stack use the one that runs, or start one and stop what they started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from services.chassis.kafka.cluster import Cluster
from services.cli.listening import listen
from services.cli.output import say
from services.cli.settings import CliSettings
from services.devstack import state
from services.devstack.process import last_lines, open_log
from services.devstack.stack import running
from services.devstack.state import StackState

HOW_LONG = "half a minute, and some minutes the first time"
"""How long a start takes, for messages; the first one downloads Kafka."""
_START_SECONDS = 300.0
"""The longest wait for a start; the first one may download the broker's jars."""
_STOP_SECONDS = 90.0


class StackFailure(Exception):
    """The stack did not start or stop; the message has the last lines of its log."""


@contextmanager
def http_address(settings: CliSettings) -> Iterator[str]:
    """Yield the base address of the services without a final slash: NEUROWEAVER_HTTP, otherwise the stack's."""
    if settings.http:
        yield settings.http.rstrip("/")
    else:
        with whole_stack(settings) as stack:
            assert stack.http is not None
            yield stack.http


@contextmanager
def whole_stack(settings: CliSettings) -> Iterator[StackState]:
    """Run servers and all four services until they are ready; a running stack is used and left running.

    Raises StackFailure.
    """
    if state.owner(settings.home) is not None:
        yield wait_until_up(settings)
        return
    process = spawn(settings, "--bound", stdin=subprocess.PIPE)
    say(f"No stack of {home_of(settings)} is running: starting one for this command, which usually takes {HOW_LONG}.")
    assert process.stdin is not None
    try:
        yield wait_until_up(settings, process)
    finally:
        say("stopping the stack that was started for this command")
        process.stdin.close()
        process.wait(_STOP_SECONDS)


@contextmanager
def servers(settings: CliSettings) -> Iterator[tuple[Cluster, str]]:
    """Yield cluster and database URL: those that the settings name, the running stack's, or those of servers started for
    this command."""
    named = settings.named_cluster
    if named and settings.database_url:
        yield named, settings.database_url
        return
    found = state.read_state(settings.home)
    if found is not None:
        yield named or found.cluster, settings.database_url or found.database_url
        return
    with running(settings, say) as stack:
        yield stack.cluster, stack.database_url


@contextmanager
def broker(settings: CliSettings) -> Iterator[Cluster]:
    """Yield the cluster without a database: the one that the settings name, the running stack's, or one started for this
    command."""
    if named := settings.named_cluster:
        yield named
    else:
        with servers(settings) as (cluster, _):
            yield cluster


def home_of(settings: CliSettings) -> str:
    """Return the stack's folder for a message: the whole path, and the setting that names another one if it is not set."""
    named = "" if "home" in settings.model_fields_set else " (NEUROWEAVER_HOME is not set and would name another folder)"
    return f"{settings.home.resolve()}{named}"


def log_of(settings: CliSettings) -> Path:
    """Return the log file of a stack in the background."""
    return settings.home.resolve() / "logs" / "services.log"


def spawn(settings: CliSettings, *options: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    """Start `neuroweaver up` in its own session. Raises PortTaken, which otherwise only its log would show."""
    listen(settings.http_host, settings.http_port).close()
    state.make_home(settings.home)
    with open_log(log_of(settings)) as out:
        return subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", "up", *options],
            stdin=stdin,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def wait_until_up(settings: CliSettings, starting: "subprocess.Popen[bytes] | None" = None) -> StackState:
    """Wait for the stack of this home to announce its address. Raises StackFailure when it ends first or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        found = state.read_state(settings.home)
        if found is not None and found.http is not None:
            return found
        ended = starting is None or starting.poll() is not None
        if ended and state.owner(settings.home) is None:
            raise StackFailure(f"the stack ended while it started.{last_lines(log_of(settings))}")
        if time.monotonic() > deadline:
            raise StackFailure(f"the stack was not ready within {_START_SECONDS:.0f} s.{last_lines(log_of(settings))}")
        time.sleep(0.1)


def stop_stack(settings: CliSettings) -> bool:
    """Stop the stack of this home, whoever started it; False when none runs. Raises StackFailure."""
    pid = state.owner(settings.home)
    if pid is None and not state.is_locked(settings.home):
        return False
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while state.is_locked(settings.home) or (pid is not None and _is_running(pid)):
        if time.monotonic() > deadline:
            raise StackFailure(f"the stack (pid {pid}) did not stop within {_STOP_SECONDS:.0f} s; see {log_of(settings)}")
        time.sleep(0.05)
    return True


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
