"""Defines what the HTTP API says of a row, documented for /docs."""

from datetime import datetime

from pydantic import Field

from schemas.base import Frozen


class FoundRow(Frozen):
    """A row in a data set."""

    dataset: str = Field(description="The data set, `name@digest`.")
    split: str = Field(description="train, or validation or test, whose rows are only measured on.")
    row: str = Field(description="Id of the row.")


class SeeingStep(Frozen):
    """A training that learnt from the row."""

    job_id: str
    step: str
    attempt: int
    at: datetime = Field(description="When it was completed.")
    row: str = Field(description="Id of the row.")
    times: int = Field(description="How often the row was in a batch.")


class SeeingVersion(Frozen):
    """A version that learnt from the row, or that continues from one."""

    id: str = Field(description="`name@version`.")
    aliases: tuple[str, ...] = Field(description="Aliases that name it now.")
    deployments: tuple[str, ...] = Field(description="Deployments that serve it to their callers now.")
    through: str | None = Field(
        description="The version that it continues from and that learnt from the row; null if its own job did."
    )


class RowSeen(Frozen):
    """Who saw a row."""

    digest: str
    found: tuple[FoundRow, ...] = Field(description="Where the row is.")
    steps: tuple[SeeingStep, ...] = Field(description="The trainings that learnt from it.")
    versions: tuple[SeeingVersion, ...] = Field(
        description="The versions that learnt from it, directly or by continuing from one."
    )
    complete: bool = Field(description="Whether everything was searched; `remarks` say what was not.")
    remarks: tuple[str, ...] = Field(description="What could not be searched, and why.")
