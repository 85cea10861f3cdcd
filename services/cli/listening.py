"""A taken HTTP port is found before anything is started, and said with who holds it and what to do."""

import shlex
import socket
from pathlib import Path

import psutil


class PortTaken(Exception):
    """The HTTP port cannot be bound."""


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises PortTaken with a remedy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY on accepted connections only if the protocol is named; without it every answer waits 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise PortTaken(
            f"NEUROWEAVER_HTTP_PORT={port}: {host}:{port} cannot be used ({error.strerror}); {_holder(port)}, or set "
            "another port, "
            "0 for any free one: `export NEUROWEAVER_HTTP_PORT=0`"
        ) from error
    return bound


def _holder(port: int) -> str:
    """Return the remedy for a taken `port`, on which a stack of another folder may listen."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid is not None:
                process = psutil.Process(one.pid)
                for file in process.open_files():
                    if Path(file.path).name == "stack.lock":
                        home = Path(file.path).parent
                        return (
                            f"the stack of {home} listens on it: use it with `export "
                            f"NEUROWEAVER_HOME={shlex.quote(str(home))}`"
                        )
                return f"stop {process.name()} (pid {one.pid}), which listens on it"
    except psutil.Error:  # only the owner of a process may see which one listens
        pass
    return "stop the program that listens on it"


def address_of(bound: socket.socket) -> str:
    """Return the base address of a bound socket, as this machine reaches it."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is read here, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
