"""Downloads the jars of Apache Kafka into the cache; each is checked against the committed lock.

The lock (`kafka.lock.json`) is what jgo resolved from the coordinates; installing needs no resolution and downloads only
missing files. A file is written elsewhere, checked, and renamed: an interrupted download is resumed, a damaged file is
replaced. `python -m services.devstack.jars` installs, `python -m services.devstack.jars lock` renews the lock.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from schemas.base import Frozen
from services.chassis.storage.cache import CacheSettings
from services.chassis.storage.digests import file_sha256

if TYPE_CHECKING:
    from jgo.maven import Artifact

LOCK = Path(__file__).with_name("kafka.lock.json")
KAFKA_VERSION = "4.3.1"
COORDINATES = (
    # kafka-clients first and the `!` (raw): otherwise log4j's dependency management brings an older kafka-clients along.
    f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}+org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-tools:{KAFKA_VERSION}+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
)
_PARALLEL = 6
_TRIES = 3
Say = Callable[[str], None]


class JarFailure(Exception):
    """The jars could not be downloaded; those that exist are kept."""


class Jar(Frozen):
    """One locked file."""

    coordinate: str = Field(description="group:artifact:version[:classifier].")
    file: str
    sha256: str
    size: int = Field(description="Bytes.")


class Lock(Frozen):
    """The lock file: the requested coordinates and the jars that they resolve to."""

    coordinates: str
    jars: tuple[Jar, ...]


def read_lock(path: Path = LOCK) -> Lock:
    """Read the committed lock. Raises JarFailure if it is not the lock of COORDINATES."""
    lock = Lock.model_validate_json(path.read_text())
    if lock.coordinates != COORDINATES:
        raise JarFailure(f"{path.name} has other coordinates than the code; run `python -m services.devstack.jars`")
    return lock


def jar_folder(cache: Path) -> Path:
    """Return the folder of the jars in the cache."""
    return cache / f"kafka-{KAFKA_VERSION}"


def unsound(lock: Lock, folder: Path) -> list[Jar]:
    """Jars of the lock that are missing in the folder or differ from the lock's digest."""
    return [jar for jar in lock.jars if not _sound(jar, folder / jar.file)]


def install(cache: Path, say: Say, lock: Lock | None = None) -> list[Path]:
    """Return all jars, verified, in class path order. Downloads missing or damaged ones; raises JarFailure."""
    lock = lock or read_lock()
    folder = jar_folder(cache)
    todo = unsound(lock, folder)
    if todo:
        folder.mkdir(parents=True, exist_ok=True)
        megabytes = sum(jar.size for jar in todo) / 1e6
        say(
            f"fetching {len(todo)} of {len(lock.jars)} jars of Apache Kafka {KAFKA_VERSION} ({megabytes:.0f} MB) to {folder}"
        )
        with ThreadPoolExecutor(_PARALLEL) as pool:
            failures = [failure for failure in pool.map(lambda jar: _fetch(jar, folder), todo) if failure]
        if failures:
            raise JarFailure(
                f"{len(failures)} of {len(todo)} jars could not be downloaded; the others are kept: {failures[0]}. Check "
                "the network (a mirror belongs into jgo's configuration) and start again"
            )
    return [folder / jar.file for jar in lock.jars]


def _sound(jar: Jar, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == jar.size and file_sha256(path) == jar.sha256


def _fetch(jar: Jar, folder: Path) -> str | None:
    """Download one jar into the folder; return the error, if any."""
    error = ""
    for _ in range(_TRIES):
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as staging:
            try:
                fetched = _artifact(jar.coordinate, Path(staging)).resolve()
            except Exception as failure:
                error = f"{jar.coordinate}: {type(failure).__name__}: {failure}"
                continue
            if _sound(jar, fetched):
                fetched.replace(folder / jar.file)
                return None
            error = f"{jar.coordinate}: sha256 is {file_sha256(fetched)}, the lock has {jar.sha256}"
    return error


def _artifact(coordinate: str, repository: Path) -> "Artifact":
    from jgo.maven import MavenContext

    group, name, version, *classifier = coordinate.split(":")
    context = MavenContext(repo_cache=repository, remote_repos=_repositories(), timeout=60)
    return context.project(group, name).at_version(version).artifact(*classifier)


def _repositories() -> Mapping[str, str]:
    """Return the user's repositories in jgo's configuration first (such as a mirror), then jgo's default."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL

    return {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}


def resolve() -> Lock:
    """Resolve COORDINATES again and compute the digest of every jar."""
    import jgo

    artifacts: Sequence[Artifact] = jgo.resolve(COORDINATES)
    jars = []
    with tempfile.TemporaryDirectory() as staging:
        for artifact in artifacts:
            coordinate = ":".join(
                filter(None, (artifact.groupId, artifact.artifactId, artifact.version, artifact.classifier))
            )
            path = _artifact(coordinate, Path(staging)).resolve()
            jars.append(Jar(coordinate=coordinate, file=path.name, sha256=file_sha256(path), size=path.stat().st_size))
    return Lock(coordinates=COORDINATES, jars=tuple(jars))


def main(arguments: Sequence[str]) -> None:
    """Install into the configured cache; with the argument `lock`, renew the lock instead."""
    if list(arguments) == ["lock"]:
        LOCK.write_text(json.dumps(resolve().model_dump(mode="json"), indent=1) + "\n")
        return
    try:
        install(CacheSettings().cache, lambda text: print(text, flush=True))  # noqa: T201 - a command's progress
    except JarFailure as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main(sys.argv[1:])
