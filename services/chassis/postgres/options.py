"""Handles the options of a database URL: each of libpq's options is applied, or refused by name with a remedy."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
ATTRIBUTES = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
SYSTEM = "system"
_TLS = ("sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation")
_PLACE = ("host", "port", "dbname", "user", "password", "passfile")
_SOCKET = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
OPTIONS = (
    "sslmode", *_TLS, "ssl_min_protocol_version", "ssl_max_protocol_version", *_PLACE,
    "application_name", "fallback_application_name", "connect_timeout", "options", "target_session_attrs", *_SOCKET,
)  # fmt: skip
"""Options that are applied."""
WITHOUT_EFFECT: Mapping[str, Sequence[str]] = {
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("auto", "utf8", "UTF8", "UTF-8"),
    "gssdelegation": ("0",),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "replication": ("0", "off", "no", "false"),
    "requiressl": ("0",),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
"""Options that are accepted only with these values, which describe what is done anyway."""
_POOL = "a service sets the number of its connections itself: leave it out"
_PREPARED = "leave it out; docs/deployment.md says what PgBouncer needs"
_SCHEMA = "NeuroWeaver has its own schemas: leave it out"
_GSS = "GSSAPI is not supported: use a password or a client certificate, and leave it out"
_CHECKED = "sslmode=verify-full checks the server: leave it out"
_SERVICE = "service files are not read: write host, database and user into the URL"
_REMEDIES = {
    "command_timeout": "set NEUROWEAVER_DATABASE_SECONDS instead",
    "connection_limit": _POOL,
    "currentSchema": _SCHEMA,
    "gsslib": _GSS,
    "hostaddr": "write the address in the place of the host",
    "krbsrvname": _GSS,
    "max_overflow": _POOL,
    "pgbouncer": _PREPARED,
    "pool_size": _POOL,
    "pool_timeout": _POOL,
    "prepared_statement_cache_size": _PREPARED,
    "require_auth": _CHECKED,
    "requirepeer": _CHECKED,
    "schema": _SCHEMA,
    "search_path": _SCHEMA,
    "service": _SERVICE,
    "servicefile": _SERVICE,
    "ssl": "write sslmode=require, or another of libpq's modes",
    "sslcrldir": "put the lists into one file, and name it with sslcrl",
    "statement_cache_size": _PREPARED,
    "statement_timeout": "set NEUROWEAVER_DATABASE_SECONDS instead",
}
_CONNECT_SECONDS = 10.0


class BadUrl(ValueError):
    """A database URL has a part that is not understood; the message has no password."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When the kernel closes a connection whose other side is silent; None: the system's default.

    If one of libpq's five options is set, all of them have libpq's meaning. Without any, a network that drops packets is
    noticed after about ten seconds, on connections that wait for a response and on idle ones in a pool: sooner than a
    statement's thirty seconds, and much sooner than the ten minutes of a replay's. A slow server still acknowledges
    packets, so this ends no statement that is running.
    """

    on: bool = True
    idle: int | None = 5
    """Seconds of silence before the other side is probed."""
    interval: int | None = 2
    count: int | None = 3
    user_timeout: int | None = 10_000
    """Milliseconds that sent bytes may remain unacknowledged."""

    def apply(self, connection: socket.socket) -> None:
        """Set it on a connection, except a local one, which has no network that can fail."""
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(self.on))
        asked = {
            "TCP_KEEPIDLE": self.idle if self.on else None,
            "TCP_KEEPINTVL": self.interval if self.on else None,
            "TCP_KEEPCNT": self.count if self.on else None,
            "TCP_USER_TIMEOUT": self.user_timeout,
        }
        for name, value in asked.items():
            if value is not None and (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def keepalive(options: Mapping[str, str]) -> Keepalive:
    """Return the keepalive settings of the options. Raises BadUrl."""
    if not any(name in options for name in _SOCKET):
        return Keepalive()
    given = {name: _number(name, options[name], "whole number") for name in _SOCKET if name in options}
    idle, interval, count, timeout = (given.get(name) or None for name in _SOCKET[1:])
    return Keepalive(given.get("keepalives", 1) != 0, idle, interval, count, timeout)


def connect_seconds(options: Mapping[str, str]) -> float:
    """Return the seconds that connecting to a server may take. Raises BadUrl."""
    given = options.get("connect_timeout")
    return _CONNECT_SECONDS if given is None else float(_number("connect_timeout", given, "whole number of seconds", 1))


def pairs(query: str) -> list[tuple[str, str]]:
    """Parse options as libpq does: `+` is a plus. Raises ValueError if the text is not a list of option=value."""
    found = [pair.partition("=") for pair in query.split("&") if pair]
    if not all(equals for _, equals, _ in found):
        raise ValueError(query)
    return [(unquote(key), unquote(value)) for key, _, value in found]


def require_understood(options: Mapping[str, str]) -> None:
    """Raise BadUrl for the first option that is not supported."""
    for name, value in options.items():
        if name in WITHOUT_EFFECT:
            if value not in WITHOUT_EFFECT[name]:
                met = WITHOUT_EFFECT[name][-1]
                raise BadUrl(f"its option {name}={value} is not supported; leave it out, or set it to {met}")
        elif name in _REMEDIES:
            raise BadUrl(f"its option {name!r} is not supported; {_REMEDIES[name]}")
        elif name not in OPTIONS:
            raise BadUrl(f"its option {name!r} is unknown; leave it out; known options are {', '.join(OPTIONS)}")
    for name, known in (("sslmode", TLS_MODES), ("target_session_attrs", ATTRIBUTES)):
        if options.get(name, known[0]) not in known:
            raise BadUrl(f"its option {name}={options[name]} is not understood; known values are {', '.join(known)}")
    if "search_path" in options.get("options", ""):
        raise BadUrl("its option 'options' sets search_path, which is set to NeuroWeaver's own schemas: leave it out")
    if options.get("sslrootcert") == SYSTEM and options.get("sslmode") != "verify-full":
        raise BadUrl("its option sslrootcert=system needs sslmode=verify-full")
    _require_files(options)
    connect_seconds(options)
    keepalive(options)


def passed_on(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that are passed to asyncpg; the others are applied here."""
    met = ("dbname", "connect_timeout", "host", "port", "fallback_application_name", *_SOCKET, *WITHOUT_EFFECT)
    named = {"application_name": options.get("fallback_application_name", "neuroweaver")}
    return named | {key: value for key, value in options.items() if key not in met}


def _require_files(options: Mapping[str, str]) -> None:
    for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        path = options.get(name)
        if path and not (name == "sslrootcert" and path == SYSTEM):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise BadUrl(f"its option {name}={path} cannot be read: {error.strerror}") from error


def _number(name: str, given: str, what: str, least: int = 0) -> int:
    if not (given.isascii() and given.isdecimal()) or not least <= int(given) <= 2**31 - 1:
        raise BadUrl(f"its option {name}={given} is not a {what}, {least} or more")
    return int(given)
