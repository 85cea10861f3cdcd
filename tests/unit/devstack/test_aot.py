"""A quicker start of Kafka: for which Java it is prepared, and that nothing depends on it."""

from pathlib import Path

import pytest

from services.devstack import aot, jars
from services.devstack.kafka import aot_cache

JARS = [Path("/cache/kafka/a.jar"), Path("/cache/kafka/b.jar")]


def java(folder: Path, version: int) -> Path:
    """A Java that says its version and can nothing else."""
    path = folder / f"java-{version}"
    path.write_text(f'#!/bin/sh\n[ "$1" = -version ] || exit 1\necho \'openjdk version "{version}.0.1"\' >&2\n')
    path.chmod(0o700)
    return path


def test_what_is_kept_is_of_one_java_and_of_these_jars(tmp_path: Path) -> None:
    one, other = java(tmp_path, 25), java(tmp_path, 26)
    kept = aot_cache(one, JARS)
    assert kept.parent == JARS[0].parent
    assert len({kept, aot_cache(other, JARS), aot_cache(one, JARS[:1])}) == 3
    one.write_text(one.read_text() + "# an update\n")
    assert aot_cache(one, JARS) != kept


def test_an_older_java_starts_kafka_as_ever(tmp_path: Path) -> None:
    said: list[str] = []
    assert aot.make(java(tmp_path, 17), [tmp_path / "a.jar"], 256, said.append) is None
    assert (said, list(tmp_path.glob("*.aot"))) == ([], [])


def test_a_preparation_that_fails_is_said_and_keeps_nothing_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jars, "install", lambda *_: [tmp_path / "a.jar"])
    monkeypatch.setenv("NEUROWEAVER_JAVA", str(java(tmp_path, 25)))
    aot.main()
    assert "Kafka starts without the cache" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"java-25"}
