"""Stores released contracts unchanged, so that every later contract can be compared with them.

`python -m schemas.evolution.history` stores the contract of the version in `pyproject.toml`; `--check` lists
incompatibilities.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from schemas.evolution.compatibility import SchemaChange, incompatible
from schemas.evolution.upcasting import UPCASTERS, newest
from schemas.generate.json_schema import event_schema
from schemas.topics import EVENT_TYPES, TOPIC_OF

FOLDER = Path(__file__).parents[1] / "history"
_PROJECT = Path(__file__).parents[2] / "pyproject.toml"


class AlreadyReleased(Exception):
    """The contract of a released version never changes."""


def contract() -> dict[str, dict[str, Any]]:
    """Return the contract of every event type: its topic, its key, the schema of its data."""
    return {
        name: {"topic": TOPIC_OF[name].name, "key": TOPIC_OF[name].key, "schema": event_schema(model)}
        for name, model in EVENT_TYPES.items()
    }


def releases(folder: Path = FOLDER) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Return every released version with its contract."""
    for path in sorted(folder.glob("*.json")):
        yield path.stem, json.loads(path.read_text())


def release(folder: Path = FOLDER, version: str | None = None) -> Path:
    """Store the present contract. Raises AlreadyReleased if the version was released with another one."""
    version = version or tomllib.loads(_PROJECT.read_text())["project"]["version"]
    path, text = folder / f"{version}.json", json.dumps(contract(), indent=1, ensure_ascii=False) + "\n"
    if path.exists() and path.read_text() != text:
        raise AlreadyReleased(
            f"{version} is released with another contract: raise the version in pyproject.toml, "
            f"or delete {path.name} if nobody has {version} yet"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def broken(released: dict[str, dict[str, Any]], current: dict[str, dict[str, Any]]) -> list[SchemaChange]:
    """Yield the changes by which the present contract breaks a released one."""
    changes = []
    for name, promise in released.items():
        if name not in current:
            changes += _unread(name, current)
            continue
        changes += [
            SchemaChange(name, "", f"its {word} was {promise[word]!r} and is {current[name][word]!r}")
            for word in ("topic", "key")
            if promise[word] != current[name][word]
        ]
        changes += incompatible(name, promise["schema"], current[name]["schema"])
    return changes


def _unread(name: str, current: Mapping[str, object]) -> list[SchemaChange]:
    """Return why events of a removed type cannot be read as another type."""
    if name not in UPCASTERS:
        return [SchemaChange(name, "", "the type is removed, and nothing reads its old events")]
    try:
        successor = newest(name)
    except ValueError as error:
        return [SchemaChange(name, "", str(error))]
    return (
        [] if successor in current else [SchemaChange(name, "", f"its upcasters lead to {successor}, which is not a type")]
    )


def main() -> int:
    """Return exit code 1 if a released contract is broken, or a release would change."""
    parser = argparse.ArgumentParser(prog="python -m schemas.evolution.history", description=__doc__)
    parser.add_argument("--check", action="store_true", help="store nothing; report incompatible changes")
    if not parser.parse_args().check:
        try:
            sys.stdout.write(f"released: {release()}\n")
        except AlreadyReleased as error:
            sys.stdout.write(f"{error}\n")
            return 1
    found = [(version, change) for version, released in releases() for change in broken(released, contract())]
    sys.stdout.writelines(f"since {version}: {change}\n" for version, change in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
