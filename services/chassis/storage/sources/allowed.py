"""Decides which folders, schemes and hosts a job may name. Pure: paths come resolved and hosts come with their addresses.

The author of a job need not be the operator of the service. A refusal has the same words whether or not the named thing
exists, so that a job cannot be used to find out.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from schemas.base import Frozen
from schemas.reasons import shortened

HTTP_PORTS = {"http": 80, "https": 443}
_SETTING = "NEUROWEAVER_SOURCES_"
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind NAT64 (RFC 6052)."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")
"""IPv4-compatible IPv6 addresses, which RFC 4291 deprecated."""


class Refusal(NamedTuple):
    """Why something may not be read or reached, and the remedy."""

    reason: str
    remedy: str


CREDENTIALS = Refusal("it contains credentials, and requests are kept for ever", "leave them out, and change them")


class AllowedSources(Frozen):
    """What jobs may name; `SourceSettings` builds it and has the defaults."""

    folders: tuple[Path, ...] = Field(default=(), description="Real paths; a file or folder below one of them is read.")
    closed: tuple[Path, ...] = Field(
        default=(), description="Real paths; a file below one is read only if a folder within it is listed."
    )
    schemes: tuple[str, ...] = Field(default=(), description="Schemes of URLs in addition to file.")
    hosts: tuple[str, ...] = Field(default=(), description="host or host:port that may be reached whatever its address is.")
    public_hosts: bool = Field(default=False, description="Whether every host with a public address may be reached.")
    hub: bool = Field(default=False, description="Whether ids of the Hugging Face hub are allowed.")
    download_bytes: int = Field(default=0, description="One download at most.")
    download_seconds: float = Field(default=0.0, description="One download at most.")


def path_refusal(path: Path, allowed: AllowedSources) -> Refusal | None:
    """Why `path`, a real path without links in it, may not be read; None if it may."""
    root, fence = _nearest(path, allowed.folders), _nearest(path, allowed.closed)
    if root is None or (fence is not None and len(fence.parts) >= len(root.parts)):
        listed = ", ".join(map(str, allowed.folders)) or "none"
        return Refusal(
            f"it is outside the folders that jobs may name ({listed})",
            f"move it there, or have the operator add its folder to {_SETTING}FOLDERS",
        )
    if any(part.startswith(".") for part in path.relative_to(root).parts):
        return Refusal(
            "hidden files and folders are not read", f"rename it, or have the operator list it in {_SETTING}FOLDERS"
        )
    return None


def _nearest(path: Path, folders: Iterable[Path]) -> Path | None:
    """The deepest of the folders that contain `path`."""
    above = [folder for folder in folders if path.is_relative_to(folder)]
    return max(above, key=lambda folder: len(folder.parts), default=None)


def scheme_refusal(scheme: str, allowed: AllowedSources) -> Refusal | None:
    """Why URLs of this scheme may not be read; None if they may."""
    if scheme in allowed.schemes:
        return None
    known = ", ".join(f"{name}://" for name in ("file", *allowed.schemes))
    return Refusal(
        f"the scheme {shortened(scheme, 20)}:// is not among those that jobs may name ({known})",
        f"use a path, one of these or a hub id, or have the operator add it to {_SETTING}SCHEMES",
    )


def host_refusal(host: str, port: int, addresses: Sequence[str], allowed: AllowedSources) -> Refusal | None:
    """Why `host`, which has these addresses, may not be connected to; None if it may.

    A host without addresses is refused like one whose address is not public, so that refusals do not reveal the network.
    """
    if is_listed(host, port, allowed):
        return None if addresses else Refusal("the host is unknown", "correct the host")
    if not allowed.public_hosts:
        return not_listed(host, port)
    if not addresses or not all(is_public(address) for address in addresses):
        return Refusal(
            "the host is unknown here, or its address is not public", f"correct the host, or {_listing(host, port)}"
        )
    return None


def not_listed(host: str, port: int) -> Refusal:
    """The refusal of a host that the operator has not listed."""
    return Refusal("the host is not among those that jobs may name", _listing(host, port))


def key_refusal(host: str, port: int, allowed: AllowedSources) -> Refusal | None:
    """Why no key of a judge is sent to `host`; None if one is.

    Keys go only to hosts that the operator names, not the job.
    """
    if is_listed(host, port, allowed):
        return None
    return Refusal(
        "keys are sent only to hosts that the operator has listed",
        f"{_listing(host, port)}, or name no key",
    )


def is_listed(host: str, port: int, allowed: AllowedSources) -> bool:
    """Whether the operator has listed the host with this port or without a port."""
    name = _plain(host)
    bare = f"[{name}]" if ":" in name else name
    return bool({name, bare, f"{bare}:{port}"} & {_plain(entry) for entry in allowed.hosts})


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also where an IPv4 address is wrapped in an IPv6 one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and (found in _TRANSLATED or found in _COMPATIBLE):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved and not found.is_unspecified


def _plain(host: str) -> str:
    return host.strip().lower().rstrip(".")


def _listing(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"have the operator add {shortened(f'{name}:{port}', 100)} to {_SETTING}HOSTS"
