"""Reads references to registered versions of models: `name@version` or `name@alias`."""

import re
from typing import NamedTuple

from schemas.base import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)

LIVE, DEPRECATED, ARCHIVED, DELETED = "live", "deprecated", "archived", "deleted"
"""The states of a version."""
OUT_OF_USE = (ARCHIVED, DELETED)
"""The states in which nothing may use a version."""
STATE_WORDS = (
    "live; deprecated: still in use, and nothing new should use it; archived: no alias names it, no deployment serves it, and no job "
    "starts from it or is judged by it; deleted: like archived, nothing continues from it, and its files are removed later."
)
"""What each state means, for people."""


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


_SEMANTIC = re.compile(r"(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){2}")


def is_semantic(version: str) -> bool:
    """Return whether a text is MAJOR.MINOR.PATCH, as the versions of models are."""
    return _SEMANTIC.fullmatch(version) is not None


_LIKE_A_VERSION = re.compile(r"v?[0-9]+([._-].*)?", re.IGNORECASE)


def alias_fault(alias: str) -> str | None:
    """Return why `alias` cannot be the name of an alias; None if it can.

    `name@alias` and `name@version` have one form, so an alias must not look like a number, a version or the newest version.
    """
    if _LIKE_A_VERSION.fullmatch(alias):
        return "an alias must not look like a number or a version"
    if alias.lower() == "latest":
        return "`latest` is not an alias: a model's name alone means its highest version"
    return None


ALIAS_REMEDY = "use a name that begins with a letter and says what the alias is for, such as candidate or production"
