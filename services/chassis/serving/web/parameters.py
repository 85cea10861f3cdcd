"""Types of path and query parameters: they refuse text that a database cannot store, and `.` or `..` as a path segment."""

from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, Field

from schemas.attributes import ATTRIBUTE_LIMIT
from schemas.base import NAME_PATTERN

_FOLDERS = (".", "..")


def no_folder(text: str) -> str:
    """Return the text. Raises ValueError for a segment that clients remove from a URL before they send it."""
    if text in _FOLDERS:
        raise ValueError("a URL would treat the name as a folder; use a name with a letter or a digit")
    return text


Text = Annotated[str, Field(min_length=1, max_length=ATTRIBUTE_LIMIT, pattern=r"^[^\x00]+$")]
"""Text that may be a key."""
LongText = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[^\x00]+$")]
"""Text of any reference."""
Cursor = Annotated[str, Field(min_length=1, max_length=8192, pattern=r"^[A-Za-z0-9_-]+$")]
"""`next` of a page: long enough for the longest key, whose characters take up to twelve characters each in JSON."""
NameInPath = Annotated[str, Path(pattern=NAME_PATTERN), AfterValidator(no_folder)]
"""A name that follows NAME_PATTERN."""
TopicInPath = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="A topic's name, as Kafka allows it."),
    AfterValidator(no_folder),
]
PartitionInPath = Annotated[int, Path(ge=0, lt=2**31, description="Partition of the topic.")]
OffsetInPath = Annotated[int, Path(ge=0, lt=2**63, description="Offset of the record.")]
