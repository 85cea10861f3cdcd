"""Sends HTTP requests to hosts that a job names; each connection, also after a redirect, uses the address that was checked.

A name that is resolved once for the check and again for the connection may give another address the second time (DNS
rebinding), so it is resolved once. TLS still verifies the name. If the operator's environment names a proxy, the proxy
resolves names, and only listed hosts are requested.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from urllib.request import getproxies, proxy_bypass

import httpx2

from services.chassis.storage.sources.allowed import (
    CREDENTIALS,
    HTTP_PORTS,
    AllowedSources,
    Refusal,
    host_refusal,
    is_listed,
    not_listed,
    scheme_refusal,
)

Resolve = Callable[[str, int], list[str]]
"""Returns the addresses of a host; none if the host does not exist."""


class SourceRefused(Exception):
    """A job names a source that is not allowed; nothing was sent."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.reason}; {refusal.remedy}")
        self.refusal = refusal


def resolved(host: str, port: int) -> list[str]:
    """Resolve a host as the machine does. Raises OSError if the resolver does not answer."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise
        return []
    except UnicodeError:
        return []


def port_of(url: httpx2.URL) -> int:
    """The port of the connection."""
    return url.port or HTTP_PORTS.get(url.scheme, 0)


def url_of(text: str, allowed: AllowedSources) -> httpx2.URL:
    """Parse an http or https URL without parts that are not allowed, such as a password. Raises SourceRefused."""
    try:
        url = httpx2.URL(text.strip())
    except httpx2.InvalidURL:
        raise SourceRefused(Refusal("it is not a URL", "write it as https://host/path")) from None
    if url.scheme not in HTTP_PORTS or not url.host:
        raise SourceRefused(Refusal("it is not an http or https URL", "write it as https://host/path"))
    if refusal := scheme_refusal(url.scheme, allowed):
        raise SourceRefused(refusal)
    if url.userinfo:
        raise SourceRefused(CREDENTIALS)
    return url


def addresses_of(url: httpx2.URL, allowed: AllowedSources, resolve: Resolve) -> list[str]:
    """The addresses to connect to for `url`. Raises SourceRefused, and httpx2.ConnectError if no name server answers."""
    try:
        addresses = resolve(url.host, port_of(url))
    except OSError as error:
        raise httpx2.ConnectError("the name server does not answer") from error
    if refusal := host_refusal(url.host, port_of(url), addresses, allowed):
        raise SourceRefused(refusal)
    return addresses


def pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """The same request, sent to this address; TLS still verifies the name."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


def _proxy(url: httpx2.URL, allowed: AllowedSources, proxies: Mapping[str, str]) -> str | None:
    """The operator's proxy for `url`, if any. Raises SourceRefused if only the proxy would know the address."""
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy is None or proxy_bypass(url.host):
        return None
    if not is_listed(url.host, port_of(url), allowed):
        raise SourceRefused(not_listed(url.host, port_of(url)))
    return proxy


class Guarded(httpx2.AsyncBaseTransport):
    """An HTTP transport that connects to checked addresses only; it uses the first address that accepts the connection."""

    def __init__(self, allowed: AllowedSources, resolve: Resolve = resolved, *, kept: int = 20) -> None:
        """`kept`: idle connections to keep; use 0 for several names, since a connection for one would serve another."""
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
