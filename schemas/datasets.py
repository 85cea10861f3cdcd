"""Defines the registry's events about data sets, and how a job names a data set that is registered."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from pydantic import Field

from schemas.artifacts import SHA256_PATTERN, ArtifactRef
from schemas.base import EventData, Name
from schemas.recipes.dataset import DATASET_NAME_PATTERN, DatasetSettings

PREFIX_AT_LEAST = 12
"""The fewest digits of a digest that name a data set."""
ROWS_AT_ONCE = 100
"""The most rows that are erased, or looked for, at once."""
UNNAMED = "dataset"
"""The name of a data set whose reference has no character that a name may have."""
_REFERENCE = re.compile(rf"({DATASET_NAME_PATTERN.strip('^$')})@([0-9a-fA-F]{{1,64}})")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_NAME_AT_MOST = 128


class DatasetReference(NamedTuple):
    """A reference to a registered data set."""

    name: str
    digest: str
    """Its digest, or the first digits of it, in lower case."""


def dataset_reference(settings: DatasetSettings) -> DatasetReference | None:
    """Return the registered data set that the settings name; None if they name a path, a URL or an id on the hub."""
    found = _REFERENCE.fullmatch(settings.reference)
    if settings.format != "jsonl" or found is None:
        return None
    return DatasetReference(found[1], found[2].lower())


def dataset_name(settings: DatasetSettings) -> str:
    """Return the name under which the data of a job are registered: the one that the job gives, that of the registered data set
    which it names, or else the last part of its reference, with hyphens for what a name cannot have."""
    if settings.name is not None:
        return settings.name
    if registered := dataset_reference(settings):
        return registered.name
    path = unquote(settings.reference.partition("?")[0].partition("#")[0]).rstrip("/")
    last = re.split(r"[/\\]", path)[-1]
    if settings.format == "hub":
        last = path.partition("@")[0].replace("/", ".")
    for extension in _EXTENSIONS:
        last = last.removesuffix(extension)
    return _OTHER.sub("-", last).strip(".-")[:_NAME_AT_MOST].strip(".-") or UNNAMED


class DatasetRegistered(EventData):
    """A snapshot of a data set was registered: the rows that a step of kind prepare stored. It never changes. The same rows under
    the same name are registered once."""

    dataset: Name = Field(description="Name of the data set; also the record's key.")
    sha256: str = Field(
        pattern=SHA256_PATTERN,
        description="Digest of the rows, of their pairs or labels, and of the digests of the rows as they were given. A job names the "
        "data set by it, `name@sha256`.",
    )
    dataset_sha256: str = Field(
        description="Digest of the rows alone, as in the lineage of versions and the protocol of metrics."
    )
    artifact: ArtifactRef = Field(description="The stored rows, an artifact `dataset`.")
    preferences: ArtifactRef | None = Field(default=None, description="Their pairs or labels; null for none.")
    row_index: ArtifactRef | None = Field(default=None, description="The index by which its rows are found; null for none.")
    rows: dict[str, int] = Field(description="Number of rows by split.")
    metrics: dict[str, float | None] = Field(
        description="Statistics of tokens and what was found about the rows, by name, as the step measured them."
    )
    reference: str = Field(description="What the job named: a path, a URL, an id or a registered data set.")
    source: str | None = Field(default=None, description="Where the data come from, as the requester says.")
    licence: str | None = Field(default=None, description="Their licence, as the requester says.")
    layout: str | None = Field(default=None, description="The layout of the rows and the columns that were read, in words.")
    notes: str | None = Field(default=None, description="What a person should know about the rows.")
    registered_by: str = Field(description="Who requested the job.")
    job_id: str = Field(description="The job whose step stored the rows.")
    step: str = Field(description="The step.")
    attempt: int = Field(description="The attempt at the step.")


class RowsErased(EventData):
    """Somebody erased rows of a data set: no later job reads them. The event has their digests and never what they say."""

    erasure: str = Field(
        description="Id of the erasure; rows that are in several data sets are told once for each, with one id."
    )
    dataset: Name = Field(description="Name of the data set; also the record's key.")
    sha256: str = Field(pattern=SHA256_PATTERN, description="Digest under which the data set is registered.")
    rows: tuple[str, ...] = Field(
        description=f"Digests of the rows as they were given (`schemas.row_digest`), at most {ROWS_AT_ONCE}."
    )
    by: str = Field(description="Who erased them.")
    reason: str = Field(description="Why.")


class RowsRemoved(EventData):
    """The bytes of erased rows are removed from what is stored of a data set. It keeps its name, its digest and the digests of its rows."""

    dataset: Name = Field(description="Name of the data set; also the record's key.")
    sha256: str = Field(pattern=SHA256_PATTERN, description="Digest under which the data set is registered.")
    erasures: int = Field(
        description="The number of its erasures that are done: all that were told before this event was decided."
    )
    rows: int = Field(description="Number of rows that were erased from it in all.")
    artifact: ArtifactRef = Field(description="What remains of the stored rows.")
    preferences: ArtifactRef | None = Field(
        default=None, description="What remains of their pairs or labels; null for none."
    )
    others: int = Field(
        default=0,
        description="Number of other artifacts that had one of the rows, such as predictions, and have it no more.",
    )
