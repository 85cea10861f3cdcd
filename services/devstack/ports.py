"""Chooses free loopback ports and keeps them from start to start where possible, so that noted addresses keep working."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a server can listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port in TIME_WAIT is free
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def keep_ports(file: Path, names: Sequence[str]) -> dict[str, int]:
    """Return a free port for each name: the one stored in `file` if it is still free, else a new one, which is stored."""
    noted = json.loads(file.read_text()) if file.exists() else {}
    ports: dict[str, int] = {}
    probes: list[socket.socket] = []
    for name in names:
        port = noted.get(name)
        if not isinstance(port, int) or not is_free(port):
            probe = socket.socket()
            probe.bind((LOOPBACK, 0))
            probes.append(probe)
            port = probe.getsockname()[1]
        ports[name] = port
    for probe in probes:
        probe.close()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(ports))
    return ports
