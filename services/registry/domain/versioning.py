"""Assigns version numbers by what changed since the previous version (https://semver.org)."""

from collections.abc import Mapping
from typing import NamedTuple, Self

from pydantic import JsonValue

from schemas.models import Lineage
from schemas.reasons import Reason, shown
from schemas.results import ENVIRONMENT


class Version(NamedTuple):
    """MAJOR.MINOR.PATCH; the order of versions is the order of these numbers."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a version such as `1.2.3`. Raises ValueError."""
        major, minor, patch = (int(part) for part in text.split("."))
        return cls(major, minor, patch)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


FIRST = Version(1, 0, 0)


def next_version(latest: Version, before: Lineage, now: Lineage) -> Version:
    """Return the number after `latest`.

    A different base model is a new MAJOR, because the adapter does not fit the old base. Different data or a different
    recipe is a new MINOR. The same again is a new PATCH, wherever it ran: a repetition after an update of a library is one.
    """
    if base_of(now) != base_of(before):
        return Version(latest.major + 1, 0, 0)
    if (now.dataset_sha256, _recipe(now)) != (before.dataset_sha256, _recipe(before)):
        return Version(latest.major, latest.minor + 1, 0)
    return Version(latest.major, latest.minor, latest.patch + 1)


def _recipe(lineage: Lineage) -> dict[str, JsonValue]:
    return {name: value for name, value in lineage.configuration.items() if name not in ENVIRONMENT}


def base_of(lineage: Lineage) -> str:
    """Return the identity of the base model: the digest of its content if known, else its name."""
    return lineage.base_model_sha256 or lineage.base_model


LINES = 50
"""How many lines, those with the highest numbers, a model's state knows the highest version of."""


def with_version(lines: Mapping[str, str], version: Version) -> dict[str, str]:
    """Return the highest version by line after `version` was registered. A line are the versions with one MAJOR number."""
    line = str(version.major)
    highest = max(version, Version.parse(lines[line])) if line in lines else version
    known = {**lines, line: str(highest)}
    return {line: known[line] for line in sorted(known, key=int)[-LINES:]}


def refusal_of(wanted: str, lines: Mapping[str, str]) -> Reason | None:
    """Return why a version cannot have the number `wanted`, for which a job asks; None if it can."""
    version = Version.parse(wanted)
    top = lines.get(str(version.major))
    if top is not None and version > Version.parse(top):
        return None
    if top is not None:
        after = Version.parse(top)._replace(patch=Version.parse(top).patch + 1)
        message, remedy = f"the highest version of the line {version.major} is {top}", f"name one above it, such as {after}"
    elif len(lines) < LINES or version.major > min(map(int, lines)):
        return None
    else:
        message, remedy = f"only the last {LINES} lines get versions", f"name one of line {min(lines, key=int)} or above"
    return Reason(
        field="register_version", value=shown(wanted), message=message, remedy=f"{remedy}, or none: the registry numbers it"
    )
