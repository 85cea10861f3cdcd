"""The doctor's findings: what is good, what is worth a note, what must be mended, each with what to do."""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.chassis.kafka.cluster import Cluster
from services.cli import doctor, doctor_partitions
from services.cli.doctor_databases import databases
from services.cli.doctor_http import dead_letters, http
from services.cli.settings import CliSettings
from services.devstack import jars

_GB = 10**9


def test_an_old_python_must_be_mended() -> None:
    assert doctor.python((3, 10, 4)).verdict == "mend"
    assert doctor.python((3, 11, 0)).verdict == "good"


@pytest.mark.parametrize(("available", "verdict"), [(1.5, "mend"), (4, "note"), (8, "good")])
def test_memory_is_judged_by_what_is_left(available: float, verdict: str) -> None:
    finding = doctor.memory(available * _GB)
    assert finding.verdict == verdict
    assert bool(finding.remedy) == (verdict != "good")


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert doctor.available_memory(tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.available_memory(tmp_path) > 2_000_000


def test_the_disk_is_looked_at_where_a_folder_will_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "not" / "yet"
    asked = []

    def usage(path: Path) -> shutil._ntuple_diskusage:
        asked.append(path)
        return shutil._ntuple_diskusage(total=10 * _GB, used=9 * _GB, free=1 * _GB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert doctor.disk("disk", folder, least=2, comfortable=8).verdict == "mend"
    assert doctor.disk("disk", folder, least=0.5, comfortable=8).verdict == "note"
    assert asked == [tmp_path, tmp_path]


def test_missing_jars_are_a_note_since_the_next_start_fetches_them(tmp_path: Path) -> None:
    finding = doctor.broker_jars(CliSettings(cache=tmp_path, kafka_bootstrap=None))
    assert finding.verdict == "note"
    assert f"{len(jars.read_lock().jars)} of" in finding.detail


def test_what_is_not_needed_is_not_complained_about(tmp_path: Path) -> None:
    named = CliSettings(cache=tmp_path, kafka_bootstrap="broker:9092", database_url="postgresql://u@h/d", java=tmp_path)
    for finding in (doctor.broker_jars(named), doctor.java(named), doctor.postgres_wheel(named)):
        assert finding.verdict == "good"
        assert "not needed" in finding.detail


def test_a_broken_java_must_be_mended(tmp_path: Path) -> None:
    finding = doctor.java(CliSettings(java=tmp_path, kafka_bootstrap=None))
    assert finding.verdict == "mend"
    assert "NEUROWEAVER_JAVA" in finding.detail


def test_silent_servers_must_be_mended() -> None:
    assert doctor.broker(Cluster("127.0.0.1:1")).verdict == "mend"
    found = databases("postgresql://u@127.0.0.1:1/d")
    assert found.verdict == "mend"
    assert "NEUROWEAVER_DATABASE_URL" in found.remedy


def test_a_port_that_another_program_holds_must_be_mended() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = http(CliSettings(http=None, http_port=port), None)
    assert finding.verdict == "mend"
    assert str(port) in finding.detail


@contextmanager
def answering(answers: dict[str, str]) -> Iterator[int]:
    """A server that knows a few paths; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = answers.get(self.path)
            self.send_response(200 if said else 404)
            self.end_headers()
            self.wfile.write((said or "{}").encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


NOT_READY = (
    """{"services": [{"name": "trainer", "conditions": [{"name": "relay", "holds": false, "reason": "no broker"}]}]}"""
)


@pytest.mark.parametrize("behind", ["/api/v1", "/api/v1/"])
def test_an_address_that_is_more_than_the_base_is_said_with_what_it_should_be(behind: str) -> None:
    with answering({"/api/v1/health/detailed": NOT_READY}) as port:
        found = http(CliSettings(http=f"http://127.0.0.1:{port}{behind}"), None)
        assert (found.verdict, "404" in found.detail, "only the base address" in found.remedy) == ("mend", True, True)
        assert "relay: no broker" in http(CliSettings(http=f"http://127.0.0.1:{port}/"), None).detail


@pytest.mark.parametrize("said", ["[]", "no JSON", '{"services": 1}', '{"services": [{}]}'])
def test_another_program_that_answers_is_told_apart_from_services_that_are_not_ready(said: str) -> None:
    with answering({"/api/v1/health/detailed": said, "/api/v1/dead-letters/trainer": said}) as port:
        address = f"http://127.0.0.1:{port}"
        assert "not as NeuroWeaver does" in http(CliSettings(http=address), None).detail
        assert "another program" in http(CliSettings(http=None, http_port=port), None).detail
        assert dead_letters(address).verdict == "good"
    with answering({"/api/v1/health/detailed": NOT_READY}) as port:
        found = http(CliSettings(http=None, http_port=port), None)
    assert "by NeuroWeaver services, which are not ready: trainer: relay: no broker" in found.detail


def test_a_check_that_fails_is_a_finding_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(doctor, "python", broken)
    monkeypatch.setattr(doctor_partitions, "build", broken)
    found = {one.check: one for one in doctor.examine(CliSettings(home=tmp_path, http=None, kafka_bootstrap=None))}
    assert "TimeoutError" in found["doctor"].detail
    assert "GPU" in found
    looked = doctor_partitions.partitions(Cluster("127.0.0.1:1"), "postgresql://u@127.0.0.1:1/d", tmp_path)
    assert (looked.verdict, "TimeoutError" in looked.detail) == ("note", True)


def test_bf16_is_read_off_the_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu avx512_bf16\n")
    assert "bf16 in hardware" in doctor.processor(cpuinfo).detail
    cpuinfo.write_text("flags : fpu avx2\n")
    assert "no bf16" in doctor.processor(cpuinfo).detail
