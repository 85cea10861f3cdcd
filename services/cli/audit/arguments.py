"""How a person names a record, and a root that was kept."""

import re

from services.chassis.kernel.records import RecordId

_PLACE = re.compile(r"([A-Za-z0-9._-]+):(\d{1,10}):(\d{1,19})", re.ASCII)
_ROOT = re.compile(r"([A-Za-z0-9._-]+):(\d{1,10})=([0-9A-Fa-f]{64})", re.ASCII)
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


class InvalidArgument(ValueError):
    """An option's value does not have the form that the option needs."""


def record_id(text: str) -> RecordId:
    """Parse the id of a record. Raises InvalidArgument."""
    if match := _PLACE.fullmatch(text):
        return match[1], int(match[2]), int(match[3])
    raise InvalidArgument(f"--record {text!r} does not name a record; write it as neuroweaver.jobs:2:17")


def root(text: str) -> tuple[tuple[str, int], str]:
    """Parse a partition together with its kept root. Raises InvalidArgument."""
    if match := _ROOT.fullmatch(text):
        return (match[1], int(match[2])), match[3].lower()
    raise InvalidArgument(
        f"--root {text!r} is not a root; write it as neuroweaver.jobs:2=HEX with the 64 digits that the export printed"
    )


def digest(text: str) -> str:
    """Parse the digest of a manifest. Raises InvalidArgument."""
    if _DIGEST.fullmatch(text):
        return text.lower()
    raise InvalidArgument(f"--digest {text!r} is not a SHA-256; give the 64 hex digits that the export printed")
