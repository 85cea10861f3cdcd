"""Reads references to registered versions of models: `name@version` or `name@alias`."""

import re
from typing import NamedTuple

from schemas.base import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)


class VersionReference(NamedTuple):
    """A reference to a registered version."""

    model: str
    version: str
    """A semantic version or an alias."""


def version_reference(reference: str) -> VersionReference | None:
    """Return the version that `reference` names; None if it is a path, a URL or an id with an owner."""
    model, at, version = reference.partition("@")
    if not at or reference.startswith(".") or not _NAME.fullmatch(model) or not _NAME.fullmatch(version):
        return None
    return VersionReference(model, version)
