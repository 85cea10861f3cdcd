"""Defines the HTTP API's views of data sets, documented for /docs; a list has summaries, a single get has everything."""

from datetime import datetime

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen
from services.registry.datasets.queries import StoredDataset


class DatasetSummary(Frozen):
    """One version of a data set in a list; GET /datasets/{dataset_id} has its artifact and its statistics."""

    id: str = Field(description="`name@digest`, as a job names it in `dataset.reference`.")
    name: str
    sha256: str = Field(description="Digest under which it is registered.")
    registered_at: datetime
    registered_by: str = Field(description="Who requested the job that stored the rows first.")
    job_id: str = Field(description="That job.")
    licence: str | None = Field(description="Its licence, as the requester says; null: nobody said.")
    dataset_sha256: str = Field(description="Digest of the rows alone, as in the lineage of versions.")
    rows: dict[str, int] = Field(description="Number of rows by split.")
    reference: str = Field(description="What the job named: a path, a URL, an id or a registered data set.")
    source: str | None = Field(description="Where the data come from, as the requester says; null: nobody said.")


class DatasetPage(Frozen):
    """A page of data sets, newest first."""

    items: tuple[DatasetSummary, ...]
    next: str | None = Field(description="Cursor of the next page; null at the end.")


class DatasetView(DatasetSummary):
    """One version of a data set; only what was erased of it can change."""

    step: str = Field(description="The step that stored the rows.")
    attempt: int
    artifact: ArtifactRef = Field(description="The stored rows.")
    preferences: ArtifactRef | None = Field(description="Their pairs or labels; null for none.")
    erased_rows: int = Field(default=0, description="How many rows were erased from it, and their bytes removed.")
    erasing: bool = Field(default=False, description="Whether bytes of erased rows are still to be removed.")
    remains: ArtifactRef | None = Field(
        default=None, description="What remains of the stored rows, which is what jobs read; null if no row was erased."
    )
    row_index: ArtifactRef | None = Field(description="The index by which its rows are found; null for none.")
    metrics: dict[str, float | None] = Field(description="Statistics of tokens and what was found about the rows.")
    layout: str | None = Field(description="The layout of the rows and the columns that were read, in words.")
    notes: str | None = Field(description="What a person should know about the rows.")


def stored_dataset(stored: StoredDataset) -> DatasetView:
    """Return the view of what a row has."""
    made = stored.made
    fields = made.model_dump(exclude={"dataset"})
    if remains := stored.remains:
        fields |= {"erased_rows": remains.rows, "remains": remains.artifact}
    fields |= {"erasing": bool(stored.erasing)}
    return DatasetView(id=f"{made.dataset}@{made.sha256}", name=made.dataset, registered_at=stored.registered_at, **fields)
