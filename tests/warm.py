"""Starts `neuroweaver` without its imports: a process that has them forks, which saves each command of the tests two seconds of a core.

What runs is a process of its own as ever, with arguments, environment and files of its own. That the command starts by itself, and
what it imports then, is the subject of other tests (`tests/unit/cli`, `tests/integration/cli/test_stack_commands.py`).
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import services.cli
from schemas.steps import SERVICES

_LATER = ("services.cli.trying", "services.cli.demo")
"""Modules that import torch."""
_TAKEN = b"."
_TURN = threading.Lock()
"""Held by the sender of an order until the order is accepted."""


@cache
def _origin() -> socket.socket:
    """Return the process that takes orders for commands; it ends with this process."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
        stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
    )  # fmt: skip
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def run(arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[int]) -> int:
    """Run `neuroweaver` with these arguments, environment and standard files; returns its exit code, or -1 where a signal ended it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        order = json.dumps([list(arguments), dict(environment), os.getcwd()]).encode() + b"\n"  # noqa: PTH109
        with _TURN:
            origin = _origin()
            socket.send_fds(origin, [order], [*files, theirs.fileno()])
            assert origin.recv(1) == _TAKEN, "the process that forks has ended"
        theirs.close()
        said = ours.recv(16)
    return int(said or b"-1")


def _main(orders: socket.socket) -> Callable[[], None] | None:
    """Fork for each order until there are no more; returns the order in the fork."""
    while True:
        order, files, _, _ = socket.recv_fds(orders, 65536, 4)
        if not order:
            return None
        while not order.endswith(b"\n"):
            order += orders.recv(65536)
        orders.sendall(_TAKEN)
        if os.fork() == 0:
            orders.close()
            *standard, answer = files
            return lambda: _tell(answer, standard, *json.loads(order))
        for file in files:
            os.close(file)


def _tell(answer: int, standard: Sequence[int], arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Wait for the command, a fork of this process, and report how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if command := os.fork():
        _, status = os.waitpid(command, 0)
        os.write(answer, str(max(-1, os.waitstatus_to_exitcode(status))).encode())
        os._exit(0)
    os.close(answer)
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["neuroweaver", *arguments]
    from services.cli.main import run

    run()


def _import_all() -> None:
    """Import all modules that commands import, except those that only a few need."""
    for module in pkgutil.walk_packages(services.cli.__path__, "services.cli."):
        if not module.name.startswith(_LATER):
            importlib.import_module(module.name)
    for service in SERVICES:
        importlib.import_module(f"services.{service}.app")
    assert "torch" not in sys.modules
    assert threading.active_count() == 1, "a process with threads cannot be forked"


if __name__ == "__main__":
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # otherwise the garbage collector of an ending fork would visit all of it
    if work := _main(socket.socket(fileno=int(sys.argv[1]))):
        work()
