"""Assigns version numbers by what changed since the previous version (https://semver.org)."""

from typing import NamedTuple, Self

from schemas.models import Lineage


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
    recipe is a new MINOR. The same again (another seed, a repeated job) is a new PATCH.
    """
    if base_of(now) != base_of(before):
        return Version(latest.major + 1, 0, 0)
    if (now.dataset_sha256, now.configuration) != (before.dataset_sha256, before.configuration):
        return Version(latest.major, latest.minor + 1, 0)
    return Version(latest.major, latest.minor, latest.patch + 1)


def base_of(lineage: Lineage) -> str:
    """Return the identity of the base model: the digest of its content if known, else its name."""
    return lineage.base_model_sha256 or lineage.base_model
