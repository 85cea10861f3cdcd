"""Writes a request to the server of a version, with what that server needs."""

from collections.abc import Mapping

import httpx2

from services.registry.calling.asked import Asked, written
from services.registry.calling.routing import Server


def body_for(asked: Asked, server: Server) -> bytes:
    """Return the request in the server's own words."""
    return written(asked, server.called or server.served)


def request_to(http: httpx2.AsyncClient, server: Server, body: bytes, keys: Mapping[str, str]) -> httpx2.Request:
    """Return the request; `keys` are API keys by the address of the server, which alone gets it."""
    headers = {**dict(server.headers), "content-type": "application/json", "accept-encoding": "identity"}
    if key := keys.get(server.address):
        headers["authorization"] = f"Bearer {key}"
    return http.build_request("POST", f"{server.address}/v1/chat/completions", content=body, headers=headers)
