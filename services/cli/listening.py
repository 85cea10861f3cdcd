"""Why: a taken HTTP port is found before anything is started, and said with its remedy."""

import socket


class PortTaken(Exception):
    """The HTTP port cannot be bound."""


def listen(host: str, port: int) -> socket.socket:
    """The bound socket. Raises PortTaken with what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # with the protocol named asyncio sets TCP_NODELAY on what it accepts; without it every answer waits 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise PortTaken(
            f"NEUROWEAVER_HTTP_PORT={port}: {host}:{port} cannot be used ({error.strerror}); "
            "stop what listens there (`neuroweaver status`), or set another port, 0 for any"
        ) from error
    return bound


def address_of(bound: socket.socket) -> str:
    """Base address of a bound socket, as this machine reaches it."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is read here, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
