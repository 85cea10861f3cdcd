"""Databases as an administrator hands them out: a role that may use nothing else, encodings, several servers, TLS, a pooler."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import URL, make_url

from services.chassis.migrations.migrate import ensure_migrated, migrate
from services.chassis.migrations.provision import NoDatabase, look
from services.chassis.postgres.requirements import Unsuitable
from services.chassis.postgres.urls import parse
from services.chassis.settings import ServiceSettings
from services.devstack.ports import LOOPBACK, keep_ports
from tests.certificates import certificates
from tests.toy import Toy, until

_PASSWORD = "p@ss%w/o:r?d"


class Server:
    """The session's server, as its administrator uses it."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)

    async def do(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.url.render_as_string(hide_password=False))
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    def of(self, name: str, user: str | None = None, **parts: object) -> str:
        """URL of a database, for a role made by `role` or the administrator."""
        url = self.url.set(database=name, **parts)  # type: ignore[arg-type]
        return (url.set(username=user, password=_PASSWORD) if user else url).render_as_string(hide_password=False)


@pytest.fixture
def server(database_url: str) -> Server:
    return Server(database_url)


@pytest.fixture
async def role(server: Server) -> AsyncIterator[str]:
    """A role that may not connect to the database `postgres`, nor to any other that is not given to it."""
    name = f"app_{uuid4().hex[:8]}"
    await server.do(f"CREATE ROLE {name} LOGIN PASSWORD '{_PASSWORD}'", "REVOKE CONNECT ON DATABASE postgres FROM public")
    yield name
    await server.do("GRANT CONNECT ON DATABASE postgres TO public")


def settings_of(url: str, home: Path) -> ServiceSettings:
    return ServiceSettings(database_url="postgresql://nobody@127.0.0.1:1", registry_database_url=url, home=home)


async def test_a_role_that_may_only_use_its_own_database_is_enough(server: Server, role: str, tmp_path: Path) -> None:
    await server.do(f"CREATE DATABASE own_{role} OWNER {role}")

    assert await migrate(settings_of(server.of(f"own_{role}", role), tmp_path), "registry")


async def test_a_database_that_is_missing_and_may_not_be_created_is_said_with_the_statement_that_makes_it(
    server: Server, role: str, tmp_path: Path
) -> None:
    settings = settings_of(server.of(f"own_{role}", role), tmp_path)

    for attempt in (ensure_migrated(settings, "registry"), look(settings, "registry")):
        with pytest.raises(NoDatabase) as refused:
            await attempt
        assert f'CREATE DATABASE "own_{role}" ENCODING \'UTF8\' TEMPLATE template0 OWNER "{role}"' in str(refused.value)
        assert "permission denied" in str(refused.value)
        assert _PASSWORD not in str(refused.value)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_text_is_refused(
    encoding: str, server: Server, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name = unique("coded").replace("-", "_")
    await server.do(
        f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    settings = settings_of(server.of(name), tmp_path)

    for attempt in (ensure_migrated(settings, "registry"), migrate(settings, "registry"), look(settings, "registry")):
        with pytest.raises(Unsuitable, match=f"has the encoding {encoding}"):
            await attempt


async def test_of_several_servers_the_first_that_can_be_used_is(
    server: Server, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """One refuses connections, one takes them and says nothing: a machine that hangs."""
    name, hangs = unique("many").replace("-", "_"), asyncio.Event()

    async def hang(*_: object) -> None:
        await hangs.wait()

    silent = await asyncio.start_server(hang, LOOPBACK, 0)
    port = silent.sockets[0].getsockname()[1]
    url = server.of(name).replace(f"@{LOOPBACK}:", f"@{LOOPBACK}:1,{LOOPBACK}:{port},{LOOPBACK}:") + "?connect_timeout=1"

    assert await migrate(settings_of(url, tmp_path), "registry")
    with pytest.raises(ConnectionError, match=f"{LOOPBACK}:1: ConnectionRefusedError.*{LOOPBACK}:{port}: TimeoutError"):
        await parse(f"postgresql://u@{LOOPBACK}:1,{LOOPBACK}:{port}/d?connect_timeout=1").connect()
    with pytest.raises(TimeoutError, match=f"{LOOPBACK}:{port} opened no session in d within 1 s"):
        await parse(f"postgresql://u@{LOOPBACK}:{port}/d?connect_timeout=1").connect()
    hangs.set()
    silent.close()


@asynccontextmanager
async def tls_before(server: URL, folder: Path) -> AsyncIterator[int]:
    """What speaks TLS to clients and hands their bytes to the server, as the embedded one was built without it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)  # SSLRequest
            writer.write(b"S")
            await writer.start_tls(context)
            there, back = await asyncio.open_connection(server.host, server.port)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return
        await asyncio.gather(pump(reader, back), pump(there, writer))

    listening = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def test_tls_is_spoken_and_the_servers_certificate_checked(server: Server, tmp_path: Path) -> None:
    certificates(tmp_path)
    async with tls_before(server.url, tmp_path) as port:

        async def asked(options: str) -> int:
            connection = await parse(server.of("postgres", port=port) + f"?{options}").connect()
            try:
                return int(await connection.fetchval("SELECT 1"))
            finally:
                await connection.close()

        right, wrong = tmp_path / "ca.pem", tmp_path / "other-ca.pem"
        for options in (
            "sslmode=require",
            f"sslmode=verify-ca&sslrootcert={right}",
            f"sslmode=verify-full&sslrootcert={right}",
        ):
            assert await asked(options) == 1
        for options in (f"sslmode=verify-full&sslrootcert={wrong}", "sslmode=verify-full&sslrootcert=system"):
            with pytest.raises(ssl.SSLCertVerificationError):
                await asked(options)


@asynccontextmanager
async def pgbouncer(server: URL, folder: Path, mode: str) -> AsyncIterator[str]:
    """PgBouncer before the server, with its defaults; yields the URL of its database `postgres`."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed on this machine")
    port = keep_ports(folder / "ports.json", (mode,))[mode]
    settings = folder / f"{mode}.ini"
    settings.write_text(
        f"[databases]\n* = host={server.host} port={server.port} user={server.username} password={server.password}\n"
        f"[pgbouncer]\nlisten_addr = {LOOPBACK}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\nserver_login_retry = 1\n"
    )
    for path in (folder, *folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    process = await asyncio.create_subprocess_exec(program, "-u", "nobody", settings, stderr=asyncio.subprocess.DEVNULL)
    url = server.set(port=port, password="any").render_as_string(hide_password=False)
    try:

        async def answers() -> bool:
            try:
                connection = await asyncpg.connect(url, statement_cache_size=0)
            except OSError:
                return False
            await connection.close()
            return True

        await until(answers)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def test_a_service_works_through_pgbouncer_in_session_mode(kafka: str, server: Server, tmp_path: Path) -> None:
    async with pgbouncer(server.url, tmp_path, "session") as url:
        toy = Toy(kafka, url, tmp_path)
        await toy.create()
        async with toy.running():
            await toy.send(toy.requested("one"))
            await until(toy.log)
        await toy.engine.dispose()


async def test_a_service_refuses_pgbouncer_in_transaction_mode(
    server: Server, unique: Callable[[str], str], tmp_path: Path
) -> None:
    async with pgbouncer(server.url, tmp_path, "transaction") as url:
        own = make_url(url).set(database=unique("pooled")).render_as_string(hide_password=False)
        for _ in range(3):
            with pytest.raises(Unsuitable, match="set pool_mode=session"):
                await ensure_migrated(settings_of(own, tmp_path), "registry")
