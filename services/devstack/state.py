"""Ensures that one stack runs per home at a time, and tells other processes through a file how to reach it."""

import fcntl
import os
import time
from datetime import datetime
from pathlib import Path

import psutil
from pydantic import Field

from schemas.base import Frozen
from services.chassis.kafka.cluster import Cluster, Security
from services.chassis.process.redaction import hide, secrets_in

_LOCK = "stack.lock"
_STATE = "stack.json"
_FOLDERS = ("artifacts", "cache", "checkpoints", "kafka", "logs", "postgres", "tmp")
"""Folders that this or an earlier version created; the latter left them open to all users of the machine."""


class StackBusy(Exception):
    """Another process runs the stack of this home."""

    def __init__(self, home: Path) -> None:
        remedy = "see `neuroweaver status`, or stop it with `neuroweaver down`"
        super().__init__(f"a stack of {home} is already running; {remedy}")


class HomeUnusable(Exception):
    """The folder of the stack cannot be created or written."""

    def __init__(self, home: Path, error: OSError) -> None:
        super().__init__(
            f"NEUROWEAVER_HOME={home} cannot be used as the folder of a stack: {error.strerror}; name another folder"
        )


class UnreadableState(Exception):
    """A stack runs, but this version cannot parse its state file."""

    def __init__(self, home: Path, file: Path) -> None:
        remedy = "stop it with `neuroweaver down`" if file.name == _STATE else "end the `neuroweaver up` that runs it"
        super().__init__(
            f"a stack of {home} is running, but {file} cannot be read by this version: another version started it, or the "
            f"file was changed; {remedy}"
        )


class StackState(Frozen):
    """The state of a running stack. Only the owner may read the file, since it has passwords."""

    pid: int = Field(gt=0, lt=2**31, description="Process that runs the stack; SIGTERM stops it all.")
    started_at: datetime
    kafka_bootstrap: str
    kafka_security: Security = Security()
    database_url: str
    http: str | None = Field(default=None, description="Base address of the HTTP edge, once all services answer.")
    servers: dict[str, int] = Field(default={}, description="Servers that this stack started, with their process ids.")
    logs: Path = Field(description="Folder of all logs.")

    @property
    def cluster(self) -> Cluster:
        """How to reach Kafka."""
        return Cluster(self.kafka_bootstrap, self.kafka_security)


def make_home(home: Path) -> None:
    """Create the folder, close it to other users, and check that a stack can write in it. Raises HomeUnusable."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / _LOCK).touch(mode=0o600)
        for folder in (home / name for name in _FOLDERS):
            if folder.is_dir():
                folder.chmod(0o700)
    except OSError as error:
        raise HomeUnusable(home, error) from error


def take_lock(home: Path, wait: float) -> int:
    """Lock the home for this process and all that inherit the descriptor.

    Raises HomeUnusable, and StackBusy after `wait` seconds.
    Guards inherit it: after a crash of the owner the home stays locked until its servers have ended.
    """
    make_home(home)
    descriptor = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if read_state(home) is not None or time.monotonic() > deadline:
                os.close(descriptor)
                raise StackBusy(home) from None
            time.sleep(0.1)
        else:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor


def holds_lock(home: Path, descriptor: int) -> bool:
    """Return whether the locked file is still the one that others would lock: the folder may have been removed or
    replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), (home / _LOCK).stat())
    except OSError:
        return False


def owner(home: Path) -> int | None:
    """Return the process that starts, runs or stops the stack of this home; None if none does."""
    if not is_locked(home):
        return None
    noted = (home / _LOCK).read_text(errors="replace").strip()
    if noted and not (noted.isascii() and noted.isdigit()):
        raise UnreadableState(home, home / _LOCK)
    return int(noted) if noted and psutil.pid_exists(int(noted)) else None


def write_state(home: Path, state: StackState) -> None:
    """Replace the state file in one step."""
    new = home / f"{_STATE}.new"
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(state.model_dump_json(indent=1))
    new.replace(home / _STATE)


def remove_state(home: Path) -> None:
    """Remove the state file."""
    (home / _STATE).unlink(missing_ok=True)


def read_state(home: Path) -> StackState | None:
    """Return the running stack of this home; None if none runs, even if a crash left a file behind.

    Raises UnreadableState.
    """
    try:
        state = StackState.model_validate_json((home / _STATE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        if not is_locked(home):
            return None
        raise UnreadableState(home, home / _STATE) from error
    hide((*secrets_in(state.database_url), state.kafka_security.password, state.kafka_security.key_password))
    return state if psutil.pid_exists(state.pid) and is_locked(home) else None


def is_locked(home: Path) -> bool:
    """Return whether a stack of this home runs, starts or stops."""
    try:
        descriptor = os.open(home / _LOCK, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
