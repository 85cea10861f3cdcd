"""Starts and stops the development stack: real Kafka and PostgreSQL together, unless the settings name running servers."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

from services.chassis.kafka.cluster import Cluster
from services.devstack import jars, state
from services.devstack.java import find_java
from services.devstack.kafka import KafkaServer
from services.devstack.postgres import PostgresServer
from services.devstack.settings import DevStackSettings
from services.devstack.state import StackState

Say = Callable[[str], None]
_WAIT_FOR_LOCK = 30.0


class DevStack:
    """The stack of one home. `start` resumes what exists: data, ports, an incomplete first start."""

    def __init__(self, settings: DevStackSettings, say: Say = lambda _: None) -> None:
        self.settings, self._say = settings, say
        self.home = settings.home.resolve()
        self.kafka: KafkaServer | None = None
        """None when a real cluster is named in the settings."""
        self.postgres: PostgresServer | None = None
        """None when a real server is named in the settings."""
        self._lock: int | None = None
        self._state: StackState | None = None

    @property
    def cluster(self) -> Cluster:
        """How clients reach Kafka."""
        if named := self.settings.named_cluster:
            return named
        assert self.kafka is not None, "not started"
        return Cluster(self.kafka.bootstrap)

    @property
    def kafka_bootstrap(self) -> str:
        """host:port list for clients."""
        return self.cluster.address

    @property
    def database_url(self) -> str:
        """URL of the PostgreSQL server."""
        if self.settings.database_url:
            return self.settings.database_url
        assert self.postgres is not None, "not started"
        return self.postgres.url

    def start(self) -> None:
        """Start the servers that the settings do not name.

        Raises StackBusy, JarFailure, NoJava or ServerFailure; then none runs.
        """
        self._lock = state.take_lock(self.home, _WAIT_FOR_LOCK)
        try:
            self._start_servers(self._lock)
            self.announce(None)
        except BaseException:
            self.stop()
            raise

    def _start_servers(self, lock: int) -> None:
        logs = self.home / "logs"
        starts: list[Callable[[], None]] = []
        if not self.settings.kafka_bootstrap:
            found = jars.install(self.settings.cache, self._say)
            java = find_java(self.settings.java)
            self.kafka = KafkaServer(
                self.home / "kafka", logs / "kafka.log", java, found, heap_mb=self.settings.kafka_heap_mb, inherit=[lock]
            )
            starts.append(self.kafka.start)
        if not self.settings.database_url:
            self.postgres = PostgresServer(self.home / "postgres", logs / "postgres.log", inherit=[lock])
            starts.append(self.postgres.start)
        if starts:
            self._say(f"starting Apache Kafka and PostgreSQL in {self.home}")
            with ThreadPoolExecutor(len(starts)) as pool:
                for begun in [pool.submit(start) for start in starts]:
                    begun.result()

    def announce(self, http: str | None) -> StackState:
        """Write to the state file what runs, and the address `http` of all services once they answer."""
        started = (("kafka", self.kafka), ("postgres", self.postgres))
        servers = {name: server.process.pid for name, server in started if server and server.process.pid}
        self._state = StackState(
            pid=os.getpid(),
            started_at=self._state.started_at if self._state else datetime.now(UTC),
            kafka_bootstrap=self.cluster.address,
            kafka_security=self.cluster.security,
            database_url=self.database_url,
            http=http,
            servers=servers,
            logs=self.home / "logs",
        )
        state.write_state(self.home, self._state)
        return self._state

    @property
    def holds_home(self) -> bool:
        """Whether the home is still the folder that this stack locked."""
        return self._lock is not None and state.holds_lock(self.home, self._lock)

    def trouble(self) -> str | None:
        """Return why the running stack is no longer usable, if so: its data were removed, or a server has ended."""
        if not self.holds_home:
            return f"{self.home} was removed or replaced while the stack ran in it, and its content is lost"
        if self.kafka and (reason := self.kafka.trouble()):
            return (
                f"{reason}; run `neuroweaver down`, then `neuroweaver up`, after which each service says how to accept an "
                f"empty log; or also remove {self.home} in between to start from nothing"
            )
        if self.postgres and (reason := self.postgres.trouble()):
            return f"{reason}; run `neuroweaver down`, then `neuroweaver up`, which rebuilds the projections from the log"
        return None

    def stop(self) -> None:
        """Stop the started servers; their data are kept. Stopping twice is harmless."""
        if self._lock is None:
            return
        for server in (self.kafka, self.postgres):
            if server is not None:
                server.stop()
        if self.holds_home:
            state.remove_state(self.home)
        os.close(self._lock)
        self._lock = None


@contextmanager
def running(settings: DevStackSettings, say: Say = lambda _: None) -> Iterator[DevStack]:
    """Yield a stack that is up while the block runs."""
    stack = DevStack(settings, say)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()
