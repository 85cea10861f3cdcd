"""Defines what the HTTP API asks and says of erasures, documented for /docs."""

from typing import Annotated

from pydantic import Field

from schemas.artifacts import SHA256_PATTERN
from schemas.base import NAME_PATTERN, Frozen, Storable, Strict
from schemas.datasets import PREFIX_AT_LEAST, ROWS_AT_ONCE
from services.registry.ledger.views import FoundRow
from services.registry.views import Why

RowDigest = Annotated[str, Field(pattern=SHA256_PATTERN)]


class EraseAsked(Strict):
    """The rows that no later job reads."""

    rows: tuple[RowDigest, ...] = Field(
        min_length=1, max_length=ROWS_AT_ONCE, description="Digests of the rows as they were given (`schemas.row_digest`)."
    )
    dataset: (
        Annotated[str, Field(pattern=rf"^{NAME_PATTERN.strip('^$')}@[0-9a-f]{{{PREFIX_AT_LEAST},64}}$", max_length=193)]
        | None
    ) = Field(
        default=None,
        description="A data set, `name@digest`, that must have every one of the rows, so that a slip is refused. They are erased from all.",
    )
    by: Annotated[Storable, Field(min_length=1, max_length=256, description="Who erases them.")] = "unknown"
    reason: Annotated[Why, Field(min_length=1)]
    dry_run: bool = Field(default=False, description="Only say what would be erased.")


class LearntVersion(Frozen):
    """A version that learnt from one of the rows. It keeps what it learnt; a training without the rows makes another version."""

    id: str = Field(description="`name@version`.")
    job_id: str = Field(description="The job that made it; run again, it learns without the rows.")
    rows: int = Field(
        description="How many of the rows it learnt from; where a ledger cannot be read, they count as learnt."
    )
    through: str | None = Field(
        description="The version that it continues from and that learnt from them; null if its own job did."
    )
    aliases: tuple[str, ...] = Field(description="Aliases that name it now.")
    deployments: tuple[str, ...] = Field(description="Deployments that serve it to their callers now.")


class Erasure(Frozen):
    """Rows that are erased, or would be."""

    id: str | None = Field(description="Id of the erasure; null for a dry run.")
    rows: tuple[str, ...] = Field(description="Digests of the rows.")
    found: tuple[FoundRow, ...] = Field(description="Where the rows are. Their bytes are removed soon after the answer.")
    versions: tuple[LearntVersion, ...] = Field(description="The versions that learnt from them.")
    complete: bool = Field(description="Whether everything was searched; `remarks` say what was not.")
    remarks: tuple[str, ...] = Field(description="What could not be searched or noted yet, and why.")
