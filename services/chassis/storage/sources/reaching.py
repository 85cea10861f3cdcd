"""HTTP to hosts that a job names: each connection, that of a redirect too, goes to the very address that was checked.

A name that is resolved once for the check and again for the connection may lead elsewhere the second time (DNS rebinding), so
it is resolved once. TLS still proves the name. Where the operator's environment names a proxy, the proxy resolves names, and
only listed hosts are asked for.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from urllib.request import getproxies, proxy_bypass

import httpx2

from services.chassis.storage.sources.allowed import (
    CREDENTIALS,
    HTTP_PORTS,
    Allowed,
    Refusal,
    host_refusal,
    is_listed,
    not_listed,
    scheme_refusal,
)

Resolve = Callable[[str, int], list[str]]
"""Addresses of a host; none where there is no such host."""


class SourceRefused(Exception):
    """A job names what it may not; nothing was sent."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.reason}; {refusal.remedy}")
        self.refusal = refusal


def resolved(host: str, port: int) -> list[str]:
    """As the machine resolves it. Raises OSError where the resolver does not answer."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise
        return []
    except UnicodeError:
        return []


def port_of(url: httpx2.URL) -> int:
    """The port that is connected to."""
    return url.port or HTTP_PORTS.get(url.scheme, 0)


def url_of(text: str, allowed: Allowed) -> httpx2.URL:
    """The URL, if it is one of http or https and names nothing that does not belong there. Raises Refused."""
    try:
        url = httpx2.URL(text.strip())
    except httpx2.InvalidURL:
        raise SourceRefused(Refusal("it is no URL", "write it as https://host/path")) from None
    if url.scheme not in HTTP_PORTS or not url.host:
        raise SourceRefused(Refusal("it is no http or https URL", "write it as https://host/path"))
    if refusal := scheme_refusal(url.scheme, allowed):
        raise SourceRefused(refusal)
    if url.userinfo:
        raise SourceRefused(CREDENTIALS)
    return url


def addresses_of(url: httpx2.URL, allowed: Allowed, resolve: Resolve) -> list[str]:
    """The addresses that may be connected to for `url`. Raises Refused, and httpx2.ConnectError where no name server answers."""
    try:
        addresses = resolve(url.host, port_of(url))
    except OSError as error:
        raise httpx2.ConnectError("the name server does not answer") from error
    if refusal := host_refusal(url.host, port_of(url), addresses, allowed):
        raise SourceRefused(refusal)
    return addresses


def pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """The same request to this address; TLS still proves the name."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


def _proxy(url: httpx2.URL, allowed: Allowed, proxies: Mapping[str, str]) -> str | None:
    """The operator's proxy on the way to `url`, if any. Raises Refused where only the proxy would know where that leads."""
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy is None or proxy_bypass(url.host):
        return None
    if not is_listed(url.host, port_of(url), allowed):
        raise SourceRefused(not_listed(url.host, port_of(url)))
    return proxy


class Guarded(httpx2.AsyncBaseTransport):
    """Of several addresses of a host the first that takes the connection is asked."""

    def __init__(self, allowed: Allowed, resolve: Resolve = resolved, *, kept: int = 20) -> None:
        """`kept`: idle connections; none where several names are asked, since a connection of one would serve another."""
        self._allowed, self._resolve = allowed, resolve
        self._limits = httpx2.Limits(max_keepalive_connections=kept)
        self._opened: dict[str | None, httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = url_of(str(request.url), self._allowed)
        proxy = _proxy(url, self._allowed, getproxies())
        if proxy not in self._opened:
            self._opened[proxy] = httpx2.AsyncHTTPTransport(proxy=proxy, limits=self._limits)
        transport = self._opened[proxy]
        if proxy is not None:
            return await transport.handle_async_request(request)
        *others, last = await asyncio.to_thread(addresses_of, url, self._allowed, self._resolve)
        for address in others:
            try:
                return await transport.handle_async_request(pinned(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await transport.handle_async_request(pinned(request, last))

    async def aclose(self) -> None:
        for transport in self._opened.values():
            await transport.aclose()
