"""Defines the base classes of all models on the wire, frozen so that no decoded event can be modified, and shared types."""

import re
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,128}$"
"""Pattern of job ids, step names, model names and aliases."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


_NUMBER = re.compile(r"\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*")
FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Times outside are invalid: databases return times at the ends of the calendar as infinity, or not at all."""


def in_calendar(time: datetime) -> datetime:
    """Return the time. Raises ValueError if, in UTC, it is outside the years that every database can store and return."""
    try:
        year = time.astimezone(UTC).year
    except OverflowError:
        year = 0
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"the time is outside the years {FIRST_YEAR} to {LAST_YEAR}")
    return time


def no_number(value: object) -> object:
    """Return the value. Raises ValueError for a number, which could be seconds or milliseconds since any time."""
    if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise ValueError("a number is not a time; write the time with its zone, for example 2030-01-31T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(no_number), AfterValidator(in_calendar)]
"""A time with its zone, within the years that every database can store and return."""


def storable(text: str) -> str:
    """Return the text. Raises ValueError for a NUL or a lone surrogate, which databases cannot store."""
    if "\x00" in text or (not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text)):
        raise ValueError("the text holds a NUL or a lone surrogate; send valid Unicode text")
    return text


Storable = Annotated[str, AfterValidator(storable)]
"""Text that every database can store."""


def no_truth(value: object) -> object:
    """Return the value. Raises ValueError for true and false, which Python treats as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, and true and false are not numbers")
    return value


Whole = Annotated[int, BeforeValidator(no_truth)]
"""A whole number that a person writes."""
WholeOrNone = Annotated[int | None, BeforeValidator(no_truth)]
"""The same or null; the bounds of `Whole | None` would be missing from the JSON Schema."""
Real = Annotated[float, BeforeValidator(no_truth)]
"""A number that a person writes."""
RealOrNone = Annotated[float | None, BeforeValidator(no_truth)]
"""The same or null, for a field with bounds, as `WholeOrNone`."""


class Frozen(BaseModel):
    """An immutable value that ignores fields it does not know, so that a reader accepts events of later releases."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Strict(BaseModel):
    """An immutable value that a person writes (settings of a request): a misspelt field is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class EventData(Frozen):
    """The `data` of one event type. The class name is the type's name; `schema_version` grows with each release."""

    schema_version: ClassVar[int] = 1

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents `type` without the `neuroweaver.` prefix."""
        return cls.__name__
