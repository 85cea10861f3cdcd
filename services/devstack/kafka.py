"""Runs one real Apache Kafka node (KRaft: broker and controller in one process) with its own data folder, on loopback."""

import base64
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from services.devstack.data import DataFolder
from services.devstack.ports import LOOPBACK, keep_ports
from services.devstack.process import ServerFailure, ServerProcess

_LOG4J = Path(__file__).with_name("log4j2.xml")
_API_VERSIONS_REQUEST = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""An ApiVersions request, a client's first: size, API key, version, correlation id, null client id."""
_CLASSES_ONLY = (
    "-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTStubCaching", "-XX:-AOTAdapterCaching",
)  # fmt: skip
"""Disables machine code of the AOT cache: with TieredStopAtLevel=1, Java 25 warns at each start that the code differs."""


def aot_cache(java: Path, jars: Sequence[Path]) -> Path:
    """Path of the AOT cache (made by `aot.py`) for this Java and these jars; another Java cannot use it."""
    found = java.resolve()
    now = found.stat()
    what = "\n".join(map(str, (found, now.st_size, now.st_mtime_ns, *jars)))
    return jars[0].parent / f"kafka-{hashlib.sha256(what.encode()).hexdigest()[:16]}.aot"


class KafkaServer:
    """A broker that resumes where it stopped: the folder keeps the cluster's identity, its records and its ports."""

    properties: Sequence[str] = ()
    """Lines that a subclass adds to server.properties; the later of two lines for one name applies."""
    format_options: Sequence[str] = ()
    java_options: Sequence[str] = ()
    """Additional options of the JVM."""

    def __init__(
        self, folder: Path, log: Path, java: Path, jars: Sequence[Path], *, heap_mb: int, inherit: Sequence[int] = ()
    ) -> None:
        self.folder, self._java, self._jars, self._heap_mb = folder.resolve(), java, tuple(jars), heap_mb
        self.process = ServerProcess("Apache Kafka", log.resolve(), signal.SIGTERM, inherit=inherit)
        self._ports: dict[str, int] = {}
        self._data: DataFolder | None = None

    @property
    def bootstrap(self) -> str:
        """host:port for clients, after the start."""
        return f"{LOOPBACK}:{self._ports['broker']}"

    def start(self) -> None:
        """Start, and return when requests are answered. Raises ServerFailure."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ports = keep_ports(self.folder / "ports.json", ("broker", "controller"))
        properties = self.folder / "server.properties"
        properties.write_text(self._properties())
        self._format(properties)
        self.process.start([*self.java_command(), "kafka.Kafka", properties])
        self.process.wait_ready(self._answers)
        self._data = DataFolder(self.folder / "data")

    def trouble(self) -> str | None:
        """Return why the broker is no longer usable, if so."""
        return self._data.trouble(self.process) if self._data else None

    def stop(self) -> None:
        """Stop cleanly: the node resigns and flushes."""
        self.process.stop()

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.process.kill()

    def _properties(self) -> str:
        broker, controller = (f"{LOOPBACK}:{self._ports[name]}" for name in ("broker", "controller"))
        return "\n".join(
            (
                "process.roles=broker,controller",
                "node.id=1",
                f"listeners=PLAINTEXT://{broker},CONTROLLER://{controller}",
                f"advertised.listeners=PLAINTEXT://{broker},CONTROLLER://{controller}",
                "controller.listener.names=CONTROLLER",
                f"controller.quorum.bootstrap.servers={controller}",
                f"log.dirs={self.folder / 'data'}",
                "auto.create.topics.enable=false",
                "default.replication.factor=1",
                "min.insync.replicas=1",
                "offsets.topic.replication.factor=1",
                "offsets.topic.num.partitions=4",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "transaction.state.log.num.partitions=2",
                "share.coordinator.state.topic.replication.factor=1",
                "share.coordinator.state.topic.min.isr=1",
                "share.coordinator.state.topic.num.partitions=1",
                "broker.session.timeout.ms=4000",
                "broker.heartbeat.interval.ms=1000",
                "group.initial.rebalance.delay.ms=0",
                "num.network.threads=2",
                "num.io.threads=4",
                "log.cleaner.dedupe.buffer.size=8388608",
                "log.segment.bytes=67108864",
                "log.index.size.max.bytes=1048576",
                *self.properties,
                "",
            )
        )

    def java_command(self) -> list[str | Path]:
        """Return the Java command, with the options in a file because the class path has ninety entries."""
        cache = aot_cache(self._java, self._jars)
        options = (
            *([f'"-XX:AOTCache={cache}"'] if cache.exists() else []),
            *_CLASSES_ONLY,
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Djava.net.preferIPv4Stack=true",
            f'"-Dlog4j2.configurationFile={_LOG4J}"',
            f'-cp "{os.pathsep.join(map(str, self._jars))}"',
        )
        arguments = self.folder / "java.args"
        arguments.write_text("\n".join(options))
        return [self._java, *self.java_options, f"@{arguments}"]

    def _format(self, properties: Path) -> None:
        """Format an empty folder, which gives it its identity. An interrupted format starts again.

        It also does if the data were removed: then the cluster is a new one, which services notice by its id.
        """
        done = self.folder / "formatted"
        if done.exists() and (self.folder / "data" / "meta.properties").exists():
            return
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        cluster = base64.urlsafe_b64encode(b"\x4e" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        arguments: list[str | Path] = ["format", "--standalone", "--cluster-id", cluster, "--config", properties]
        arguments += self.format_options
        answer = subprocess.run(
            [*self.java_command(), "kafka.tools.StorageTool", *arguments], capture_output=True, text=True, timeout=120
        )
        if answer.returncode != 0:
            raise ServerFailure(f"Apache Kafka could not format {self.folder}: {answer.stdout}{answer.stderr}")
        done.write_text(cluster)

    def _answers(self) -> bool:
        """Return whether the broker answers a request; it accepts connections before it does."""
        try:
            with socket.create_connection((LOOPBACK, self._ports["broker"]), timeout=1.0) as connection:
                connection.sendall(_API_VERSIONS_REQUEST)
                return len(connection.recv(8)) == 8
        except OSError:
            return False
