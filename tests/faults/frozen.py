"""A server that hangs: every process of it is stopped and keeps its sockets, so that its kernel answers for it and nobody else does."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from services.devstack.kafka import KafkaServer
from services.devstack.postgres import PostgresServer


@contextmanager
def frozen(server: KafkaServer | PostgresServer | None) -> Iterator[None]:
    """Freeze the process during the block."""
    assert server is not None
    assert server.process.pid is not None
    parent = psutil.Process(server.process.pid)
    parent.send_signal(signal.SIGSTOP)  # from now on it starts no child
    processes = [parent, *parent.children(recursive=True)]
    try:
        for process in processes:
            _send(process, signal.SIGSTOP)
        yield
    finally:
        for process in reversed(processes):
            _send(process, signal.SIGCONT)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
