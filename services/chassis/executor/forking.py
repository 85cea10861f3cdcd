"""Makes the process of a child's module a warm one: it has imported what steps need, and forks a child for each order of its worker.

The fork goes on as a child that was started for its step. It has a session, standard files and random numbers of its own, dies with the
warm process, and that dies with its worker.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.chassis.executor.child import die_with_parent
from services.chassis.executor.messages import CHANNEL_VARIABLE, ORDERS_VARIABLE

_LARGEST_ORDER = 65536
_MOST_FILES = 8
_STOPS = (signal.SIGTERM, signal.SIGINT)
"""Signals that a service manager sends to all processes of a service: a child answers them, and the warm process outlives its children."""
_GPUS = ("/dev/nvidia", "/dev/kfd")


def fork_children(module: str) -> None:
    """Return at once in a process that was started for one step. A warm process imports `module` and returns in each child only.

    It ends when its worker has closed its end, and when nothing has run for the time that the worker gave, in both cases after its last
    child. It also ends if it cannot be forked.
    """
    given = os.environ.pop(ORDERS_VARIABLE, None)
    if given is None:
        return
    number, idle_seconds = given.split()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    die_with_parent()
    importlib.import_module(module)
    if why := unforkable():
        sys.exit(f"this process cannot be forked: {why}")
    sys.stdout.flush()
    gc.collect()
    gc.freeze()  # otherwise the garbage collector of a child would visit, and so copy, all of it
    _Forks(socket.socket(fileno=int(number)), float(idle_seconds)).make()


def unforkable() -> str | None:
    """Return why this process must not be forked: a fork has only one of its threads, and no use of its GPU."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return f"it has {threads} threads"
    files = (str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink())
    return next((f"it has opened {name}" for name in files if name.startswith(_GPUS)), None)


class _Forks:
    """The children of this process, each by its descriptor, with the pipe on which its worker hears of it."""

    def __init__(self, orders: socket.socket, idle_seconds: float) -> None:
        self._orders: socket.socket | None = orders
        self._idle_ms = idle_seconds * 1000
        self._children: dict[int, tuple[int, int]] = {}
        self._poll = select.poll()
        self._poll.register(orders, select.POLLIN)

    def make(self) -> None:
        """Fork for each order; returns in the children, and ends this process when there is nothing left to do."""
        while self._orders is not None or self._children:
            ready = self._poll.poll(None if self._children else self._idle_ms)
            if not ready:
                break
            for descriptor, _ in ready:
                if descriptor in self._children:
                    self._reap(descriptor)
                elif self._orders is not None and self._forked(self._orders):
                    return
        os._exit(0)

    def _forked(self, orders: socket.socket) -> bool:
        """Take an order and fork; return whether this is the child."""
        order, files, _, _ = socket.recv_fds(orders, _LARGEST_ORDER, _MOST_FILES)
        if not files:
            self._poll.unregister(orders)
            orders.close()
            self._orders = None
            return False
        stdin, output, answer, *kept = files
        origin = os.getpid()
        pid = os.fork()
        if not pid:
            self._leave(orders, answer)
            _become_child(origin, json.loads(order), (stdin, output, output), kept)
            return True
        for file in (stdin, output, *kept):
            os.close(file)
        child = os.pidfd_open(pid)
        self._children[child] = (pid, answer)
        self._poll.register(child, select.POLLIN)
        _say(answer, pid)
        return False

    def _reap(self, child: int) -> None:
        """Tell the worker how a child has ended."""
        pid, answer = self._children.pop(child)
        self._poll.unregister(child)
        _, status = os.waitpid(pid, 0)
        _say(answer, os.waitstatus_to_exitcode(status))
        os.close(answer)
        os.close(child)

    def _leave(self, orders: socket.socket, answer: int) -> None:
        """Close in a child what is its parent's."""
        orders.close()
        os.close(answer)
        for child, (_, other) in self._children.items():
            os.close(child)
            os.close(other)


def _say(answer: int, number: int) -> None:
    try:
        os.write(answer, b"%d\n" % number)
    except BrokenPipeError:  # the worker no longer waits; its child finds an empty standard input
        return


def _become_child(origin: int, changes: Mapping[str, str], standard: Sequence[int], kept: Sequence[int]) -> None:
    """Make this fork a process of its own. The first of the descriptors that it keeps is its channel to the worker."""
    os.setsid()
    die_with_parent()
    if os.getppid() != origin:
        os._exit(1)
    for number, file in enumerate(standard):
        os.dup2(file, number)
    for file in set(standard):
        os.close(file)
    os.environ.update(changes, **{CHANNEL_VARIABLE: str(kept[0])})
    tempfile.tempdir = None  # imports may have asked for it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
