"""The broker's jars are the locked bytes or nothing; what is there is kept, what is damaged is replaced."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.devstack import jars
from services.devstack.jars import Jar, JarFailure, Lock, install, jar_folder, read_lock, unsound

_CONTENT = {f"group:part{number}:1.0": f"bytes of part {number}".encode() for number in range(3)}


class Repository:
    """Serves content by coordinate, and counts what was asked for."""

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self.content = dict(content)
        self.served: list[str] = []

    def __call__(self, coordinate: str, folder: Path) -> "Served":
        return Served(self, coordinate, folder)


class Served:
    def __init__(self, repository: Repository, coordinate: str, folder: Path) -> None:
        self.repository, self.coordinate, self.folder = repository, coordinate, folder

    def resolve(self) -> Path:
        content = self.repository.content.get(self.coordinate)
        if content is None:
            raise ConnectionError("no route")
        self.repository.served.append(self.coordinate)
        path = self.folder / "download.jar"
        path.write_bytes(content)
        return path


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = Repository(_CONTENT)
    monkeypatch.setattr(jars, "_artifact", repository)
    return repository


@pytest.fixture
def lock() -> Lock:
    locked = tuple(
        Jar(
            coordinate=coordinate,
            file=f"{coordinate.split(':')[1]}.jar",
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
        )
        for coordinate, content in _CONTENT.items()
    )
    return Lock(coordinates="test", jars=locked)


def quiet(_: str) -> None:
    pass


def test_the_committed_lock_is_of_the_coordinates_in_the_code() -> None:
    lock = read_lock()
    assert len(lock.jars) == 92
    assert {"kafka-clients-4.3.1.jar", "kafka_2.13-4.3.1.jar", "log4j-slf4j-impl-2.25.4.jar"} <= {
        jar.file for jar in lock.jars
    }
    assert [jar.file for jar in lock.jars if jar.file.startswith("kafka-clients")] == ["kafka-clients-4.3.1.jar"]
    assert len({jar.file for jar in lock.jars}) == len(lock.jars)


def test_a_lock_of_other_coordinates_is_refused(tmp_path: Path, lock: Lock) -> None:
    other = tmp_path / "lock.json"
    other.write_text(lock.model_dump_json())
    with pytest.raises(JarFailure, match="other coordinates"):
        read_lock(other)


def test_installing_twice_fetches_once_and_keeps_the_order(tmp_path: Path, repository: Repository, lock: Lock) -> None:
    first = install(tmp_path, quiet, lock)
    assert install(tmp_path, quiet, lock) == first
    assert sorted(repository.served) == sorted(_CONTENT)
    assert [path.name for path in first] == [jar.file for jar in lock.jars]


def test_a_damaged_jar_is_found_and_replaced(tmp_path: Path, repository: Repository, lock: Lock) -> None:
    paths = install(tmp_path, quiet, lock)
    paths[1].write_bytes(b"bytes of part X")
    assert unsound(lock, jar_folder(tmp_path)) == [lock.jars[1]]
    repository.served.clear()
    install(tmp_path, quiet, lock)
    assert repository.served == [lock.jars[1].coordinate]
    assert paths[1].read_bytes() == _CONTENT[lock.jars[1].coordinate]


def test_other_bytes_than_locked_are_refused_and_never_lie_in_the_cache(
    tmp_path: Path, repository: Repository, lock: Lock
) -> None:
    repository.content[lock.jars[0].coordinate] = b"something else"
    with pytest.raises(JarFailure, match="sha256"):
        install(tmp_path, quiet, lock)
    assert sorted(path.name for path in jar_folder(tmp_path).iterdir()) == ["part1.jar", "part2.jar"]


def test_what_was_interrupted_is_resumed(tmp_path: Path, repository: Repository, lock: Lock) -> None:
    missing = repository.content.pop(lock.jars[2].coordinate)
    with pytest.raises(JarFailure, match="the others are kept"):
        install(tmp_path, quiet, lock)
    repository.served.clear()
    repository.content[lock.jars[2].coordinate] = missing
    install(tmp_path, quiet, lock)
    assert repository.served == [lock.jars[2].coordinate]
