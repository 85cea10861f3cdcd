"""The doctor's findings: what is good, what is worth a note, what must be mended, each with what to do."""

import shutil
import socket
from pathlib import Path

import pytest

from services.chassis.cluster import Cluster
from services.chassis.devstack import jars
from services.cli import doctor
from services.cli.doctor_databases import databases
from services.cli.settings import CliSettings

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
        finding = doctor.http(CliSettings(http=None, http_port=port), None)
    assert finding.verdict == "mend"
    assert str(port) in finding.detail


def test_bf16_is_read_off_the_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu avx512_bf16\n")
    assert "bf16 in hardware" in doctor.processor(cpuinfo).detail
    cpuinfo.write_text("flags : fpu avx2\n")
    assert "no bf16" in doctor.processor(cpuinfo).detail
