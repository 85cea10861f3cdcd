"""`up`, `down`, `status` and what else meets the running system, with all four services in one process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest

from schemas.steps import SERVICES
from services.cli.exits import Exit
from services.cli.settings import CliSettings
from services.cli.stack import whole_stack
from services.devstack import state

_MAIN = [sys.executable, "-m", "services.cli.main"]


class Command:
    """The command with a home of its own and a free port."""

    def __init__(self, home: Path) -> None:
        self.home = home
        without = ("NEUROWEAVER_KAFKA_BOOTSTRAP", "NEUROWEAVER_DATABASE_URL")
        kept = {name: value for name, value in os.environ.items() if name not in without}
        self.environment = {**kept, "NEUROWEAVER_HOME": str(home), "NEUROWEAVER_HTTP_PORT": "0"}

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*_MAIN, *arguments], env=self.environment, capture_output=True, text=True, timeout=600)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([*_MAIN, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def neuroweaver(home: Path) -> Command:
    return Command(home)


def test_the_system_goes_up_is_examined_and_goes_down(neuroweaver: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    up = neuroweaver("up", "--detach")
    try:
        assert up.returncode == Exit.OK, up.stderr
        asked = neuroweaver("status", "--json")
        status = json.loads(asked.stdout)
        assert asked.returncode == Exit.OK
        assert status["status"] == "ready"
        assert [service["name"] for service in status["services"]] == list(SERVICES)
        assert status["http"] in up.stdout
        assert status["kafka_bootstrap"] in up.stdout
        assert httpx2.get(f"{status['http']}/docs").status_code == 200
        stack_process = psutil.Process(status["pid"])
        family = [stack_process, *stack_process.children(recursive=True)]
        assert set(status["servers"].values()) <= {process.pid for process in family}
        assert not any("libtorch" in each.path for each in stack_process.memory_maps()), "no serving process imports torch"

        assert json.loads(neuroweaver("topics", "plan", "--json").stdout) == []
        findings = {each["check"]: each for each in json.loads(neuroweaver("doctor", "--json").stdout)}
        assert {findings[check]["verdict"] for check in ("broker", "database", "HTTP")} == {"good"}
        migrated = neuroweaver("migrate", "orchestrator")
        assert migrated.returncode == Exit.OK
        assert "orchestrator_0" in migrated.stdout

        again = neuroweaver("up")
        assert again.returncode == Exit.FAILED
        assert "already running" in again.stderr

        monkeypatch.setenv("NEUROWEAVER_HOME", str(neuroweaver.home))
        with whole_stack(CliSettings(kafka_bootstrap=None, database_url=None)) as stack:
            assert stack.pid == status["pid"], "a command uses what runs"
        assert neuroweaver("status").returncode == Exit.OK, "and leaves it running"
    finally:
        down = neuroweaver("down")
    assert down.returncode == Exit.OK
    assert neuroweaver("status").returncode == Exit.UNREACHABLE
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


def test_ctrl_c_drains_and_stops_everything(neuroweaver: Command) -> None:
    up = neuroweaver.start("up")
    until(lambda: address(neuroweaver.home) is not None)
    family = psutil.Process(up.pid).children(recursive=True)
    up.send_signal(signal.SIGINT)
    printed, _ = up.communicate(timeout=300)
    assert up.returncode == Exit.OK
    assert "NeuroWeaver is ready." in printed
    assert psutil.wait_procs(family, timeout=120)[1] == []
    assert '"event": "stopped"' in (neuroweaver.home / "logs" / "services.log").read_text(), "services drained"


def test_a_stack_started_for_a_command_ends_with_it_even_if_it_is_killed(neuroweaver: Command) -> None:
    code = (
        "import time\n"
        "from services.cli.settings import CliSettings\n"
        "from services.cli.stack import whole_stack\n"
        "with whole_stack(CliSettings()) as stack:\n"
        "    print(stack.pid, flush=True)\n"
        "    time.sleep(300)\n"
    )
    command = subprocess.Popen([sys.executable, "-c", code], env=neuroweaver.environment, stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    stack = psutil.Process(int(command.stdout.readline()))
    family = [stack, *stack.children(recursive=True)]
    command.kill()
    command.communicate()
    assert psutil.wait_procs(family, timeout=300)[1] == []
    until(lambda: not state.is_locked(neuroweaver.home))


def address(home: Path) -> str | None:
    found = state.read_state(home)
    return found.http if found else None


def until(holds: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
