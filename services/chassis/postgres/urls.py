"""Parses database URLs as PostgreSQL's own clients do, and connects to them.

Errors repeat nothing that can contain a password: they name a fault by its position in the URL.
"""

import asyncio
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias, cast
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

import asyncpg
from pydantic import AfterValidator
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.chassis.postgres import statements
from services.chassis.postgres.options import (
    SYSTEM,
    BadUrl,
    Keepalive,
    connect_seconds,
    keepalive,
    pairs,
    passed_on,
    require_understood,
)
from services.chassis.process.transient import described

STATEMENT_SECONDS = 30.0
"""Time-out of a service's statements: without a response for this long, the server hangs or the network is down. It is well
above the time that a batch waits for the locks of another."""
SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d+)?")
_ENCODE = "write @, :, /, ?, # and % of a password as %40, %3A, %2F, %3F, %23 and %25"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True)
class Database:
    """The address of a database and how to connect to it. Its text form has the address only."""

    name: str
    user: str
    servers: tuple[str, ...]
    """host:port, or a folder of sockets; the first that accepts the connection is used."""
    urls: tuple[str, ...] = field(repr=False)
    """One URL for each server, with the options that asyncpg understands."""
    connect_seconds: float
    """Seconds to connect to each server."""
    keepalive: Keepalive
    """How a dead connection is detected."""
    trusts_system: bool = False
    """Whether a server's certificate may be signed by the authorities that the machine trusts."""

    def __str__(self) -> str:
        return f"database {self.name} on {', '.join(self.servers) or 'a local socket'}"

    async def connect(
        self, session: Mapping[str, str] | None = None, *, command_timeout: float | None = None, **arguments: Any
    ) -> Connection:
        """Open an asyncpg connection with the settings `session`; the time-out is that of a statement.

        Raises the errors of the connection and of the server. The settings are set in the session, not sent as startup
        parameters, which a pooler refuses.
        """
        seconds = min(self.connect_seconds, command_timeout or self.connect_seconds)
        # asyncpg closes prepared statements that are older than this without any time-out, in the midst of other statements
        kept = {"max_cached_statement_lifetime": 0}
        connection = await self._first(seconds, {"command_timeout": command_timeout, **kept, **arguments})
        if session:
            try:
                await connection.execute(statements.set_session(session), timeout=seconds)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _first(self, seconds: float, arguments: Mapping[str, Any]) -> Connection:
        """Connect to the first usable server; if one hangs, the next is tried."""
        if self.trusts_system:
            arguments = {"ssl": ssl.create_default_context(), **arguments}
        reasons = []
        for server, url in zip(self.servers, self.urls, strict=True):
            try:
                connection: Connection = await asyncpg.connect(url, timeout=seconds, **arguments)
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched) as error:
                if isinstance(error, TimeoutError) and not str(error):  # asyncpg's own has no text
                    error = TimeoutError(f"{server} opened no session in {self.name} within {seconds:g} s")
                if len(self.servers) == 1 and not isinstance(error, asyncpg.TargetServerAttributeNotMatched):
                    raise error
                reasons.append(f"{server}: {described(error)}")
            else:
                transport: asyncio.Transport = cast(Any, connection)._transport
                self.keepalive.apply(transport.get_extra_info("socket"))
                return connection
        raise ConnectionError(f"no server of the database can be used: {'; '.join(reasons)}")

    def engine(
        self, session: Mapping[str, str] | None = None, statement_seconds: float | None = None, **arguments: Any
    ) -> AsyncEngine:
        """Return a SQLAlchemy engine with such connections; the arguments are those of `create_async_engine`."""

        async def connect() -> Connection:
            return await self.connect(session, command_timeout=statement_seconds)

        return create_async_engine("postgresql+asyncpg://", async_creator=connect, **arguments)


def parse(url: str) -> Database:
    """Parse a URL. Raises BadUrl for anything that is not understood."""
    parts = _split(url)
    options = dict(_pairs(parts.query))
    require_understood(options)
    account, _, hosts = parts.netloc.rpartition("@")
    _require_once(account, hosts, parts.path, options)
    servers = _servers(hosts, options)
    if not (name := name_of(url)):
        raise BadUrl("it names no database: postgresql://user:password@host:5432/DATABASE")
    passed = passed_on(options)
    if len(servers) > 1:
        passed.setdefault("target_session_attrs", "read-write")
    if trusts_system := passed.get("sslrootcert") == SYSTEM:
        del passed["sslrootcert"], passed["sslmode"]
    return Database(
        name,
        unquote(account.partition(":")[0]) or options.get("user", ""),
        tuple(servers),
        tuple(_url(account, server, name, passed) for server in servers),
        connect_seconds(options),
        keepalive(options),
        trusts_system,
    )


def _url(account: str, server: str, name: str, options: Mapping[str, str]) -> str:
    """Return the URL of one server for asyncpg."""
    server = (f"{account}@" if account else "") + quote(server, safe=":[]")
    return _joined("postgresql", server, name, options)


def with_name(url: str, name: str) -> str:
    """Return the URL of another database on the same server. Raises BadUrl."""
    parts = _split(url)
    kept = {key: value for key, value in _pairs(parts.query) if key != "dbname"}
    return _joined(parts.scheme, parts.netloc, name, kept)


def name_of(url: str) -> str | None:
    """Return the database that the URL names, if any. Raises BadUrl."""
    parts = _split(url)
    return unquote(parts.path.removeprefix("/")) or dict(_pairs(parts.query)).get("dbname")


def without_password(url: str) -> str:
    """Return the URL without its password, for display."""
    try:
        parts = _split(url)
        shown = {key: value for key, value in _pairs(parts.query) if "password" not in key}
    except BadUrl:
        return "(a URL that is not understood)"
    account, at, hosts = parts.netloc.rpartition("@")
    name = unquote(parts.path.removeprefix("/"))
    return _joined(parts.scheme, account.partition(":")[0] + at + hosts, name, shown)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
    except ValueError as error:
        raise BadUrl(f"it is not a URL: {_ENCODE}") from error
    if parts.scheme not in SCHEMES:
        known = f"{parts.scheme}://" if "://" in url and parts.scheme.isalnum() else "the text"
        raise BadUrl(f"{known} is not a scheme of PostgreSQL; begin the URL with postgresql:// or postgres://")
    misplaced = "@" in parts.path or ("@" in parts.query and "@" not in parts.netloc)
    if parts.netloc.count("@") > 1 or parts.fragment or misplaced:
        raise BadUrl(f"user, password and host cannot be separated: {_ENCODE}")
    if not all(_HOST.fullmatch(host) for host in parts.netloc.rpartition("@")[2].split(",")):
        raise BadUrl(f"write a server as host or host:port, and separate several by commas; {_ENCODE}")
    return parts


def _joined(scheme: str, server: str, name: str, options: Mapping[str, str]) -> str:
    query = urlencode(options, quote_via=quote)
    return f"{scheme}://{server}/{quote(name, safe='')}" + (f"?{query}" if query else "")


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return pairs(query)
    except ValueError as error:
        raise BadUrl(f"the part after the ? is not a list of option=value; {_ENCODE}") from error


def _servers(hosts: str, options: Mapping[str, str]) -> list[str]:
    """Return each server as host:port, or its folder of sockets; by libpq's rule, options name one port or one for each
    host."""
    if hosts:
        _require_ports(server.rpartition("]")[2].partition(":")[2] for server in hosts.split(","))
        return [unquote(host) for host in hosts.split(",")]
    named, ports = options.get("host", "").split(","), options.get("port", "").split(",")
    _require_ports(ports)
    if len(ports) not in (1, len(named)):
        raise BadUrl(f"it names {len(named)} hosts and {len(ports)} ports")
    ports = ports * len(named) if len(ports) == 1 else ports
    return [f"{host}:{port}" if port else host for host, port in zip(named, ports, strict=True)]


def _require_once(account: str, hosts: str, path: str, options: Mapping[str, str]) -> None:
    """Refuse what is named twice: libpq follows the option, and other clients the part before it."""
    user, _, password = account.partition(":")
    named = {
        "host": bool(hosts), "port": bool(hosts), "user": bool(user), "password": bool(password), "dbname": path.strip("/") != "",
    }  # fmt: skip
    for option in named:
        if option in options and named[option]:
            raise BadUrl(f"its option {option} names again what the part before the ? has: keep one of them")


def _require_ports(ports: Iterable[str]) -> None:
    for port in ports:
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            raise BadUrl(f"its port {port} is not between 1 and 65535")


def _understood(url: str) -> str:
    parse(url)
    return url


def _of_a_server(url: str) -> str:
    parse(with_name(url, "any"))
    return url


DatabaseUrl = Annotated[str, AfterValidator(_understood)]
"""A setting that names a database."""
ServerUrl = Annotated[str, AfterValidator(_of_a_server)]
"""A setting that names a server, on which each service's database has its own name."""
