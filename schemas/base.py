"""Why: one frozen base for everything on the wire, so that a decoded fact can never be edited in place."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,128}$"
"""What job ids, step names, model names and aliases look like."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Frozen(BaseModel):
    """An immutable value that ignores fields it does not know: consumers are tolerant, design section 3."""

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
