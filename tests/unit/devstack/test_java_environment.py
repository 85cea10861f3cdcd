"""The Java runtime, ports, settings and the guard of the development stack."""

import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from services.devstack.java import NoJava, find_java, java_version
from services.devstack.ports import keep_ports
from services.devstack.process import ServerFailure, ServerProcess
from services.devstack.settings import DevStackSettings

_SERVER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("clean", flush=True)))
print("ready", flush=True)
time.sleep(60)
"""


def test_the_bundled_java_is_new_enough() -> None:
    assert java_version(find_java(None)) >= 17


def test_a_java_home_that_is_none_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(NoJava, match=f"NEUROWEAVER_JAVA={tmp_path}.*name a `java` executable or a JAVA_HOME"):
        find_java(tmp_path)


def test_a_java_that_is_too_old_is_refused(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    with pytest.raises(NoJava, match="this is Java 11, Kafka needs 17"):
        find_java(tmp_path)


def test_ports_stay_the_same_until_somebody_else_takes_them(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = keep_ports(file, ("a", "b"))
    assert first["a"] != first["b"]
    assert keep_ports(file, ("a", "b")) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["a"]))
        taken.listen()
        second = keep_ports(file, ("a", "b"))
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROWEAVER_CACHE", str(tmp_path))
    monkeypatch.setenv("NEUROWEAVER_KAFKA_BOOTSTRAP", "broker:9092")
    settings = DevStackSettings()
    assert settings.cache == tmp_path
    assert settings.kafka_bootstrap == "broker:9092"


def test_a_server_is_stopped_with_its_own_signal(tmp_path: Path) -> None:
    server = ServerProcess("toy", tmp_path / "toy.log", signal.SIGTERM)
    server.start([sys.executable, "-c", _SERVER])
    server.wait_ready(lambda: "ready" in server.log.read_text())
    assert server.pid is not None
    process = psutil.Process(server.pid)
    server.stop()
    server.stop()
    assert not process.is_running()
    assert (tmp_path / "toy.log").read_text() == "ready\nclean\n"


def test_a_server_that_does_not_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    server = ServerProcess("toy", tmp_path / "toy.log", signal.SIGCONT, grace=0.2)
    server.start([sys.executable, "-c", "import time; time.sleep(60)"])
    assert server.pid is not None
    process = psutil.Process(server.pid)
    server.stop()
    assert not process.is_running()


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = ServerProcess("toy", tmp_path / "toy.log", signal.SIGTERM)
    server.start([sys.executable, "-c", "print('no such configuration')"])
    with pytest.raises(ServerFailure, match=r"toy ended while it started(.|\n)*no such configuration"):
        server.wait_ready(lambda: False)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    server = ServerProcess("toy", tmp_path / "toy.log", signal.SIGTERM)
    with pytest.raises(ServerFailure, match="/no/such/server"):
        server.start(["/no/such/server"])
