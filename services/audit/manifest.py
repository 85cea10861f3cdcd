"""Describes an export: which records it holds, in which files, and the Merkle root of each partition.

The export's folder has two such files. The plan is written first and fixes what belongs to the export, so that an
interrupted export continues to the same end. The manifest is written last and marks the export as complete.
"""

import re
from pathlib import Path
from typing import Self, TypeVar

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from schemas.base import Strict

FORMAT = 1
PLAN, MANIFEST = "plan.json", "manifest.json"
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_SHA256 = r"^[0-9a-f]{64}$"


class Unusable(Exception):
    """A folder is not what the command needs; the message names the folder and the remedy."""


class PlannedPartition(Strict):
    """The part of a topic partition that belongs to the export."""

    topic: str
    partition: int = Field(ge=0)
    begin: int = Field(ge=0, description="First offset of the log when the export began.")
    end: int = Field(ge=0, description="Offset after the last one that belongs to the export.")

    @model_validator(mode="after")
    def _topic_is_one_of_kafka(self) -> Self:
        if not _TOPIC.fullmatch(self.topic):
            raise ValueError(f"topic {self.topic!r} is not a valid name of a topic")
        return self

    @property
    def name(self) -> str:
        """The partition as shown to people."""
        return f"{self.topic}:{self.partition}"

    @property
    def folder(self) -> str:
        """Folder of its files in the export."""
        return f"{self.topic}/{self.partition}"


class ExportPlan(Strict):
    """What belongs to an export."""

    format: int
    cluster_id: str = Field(description="The Kafka cluster; a resumed export must read the same.")
    planned_at: AwareDatetime
    partitions: tuple[PlannedPartition, ...]


class ExportFile(Strict):
    """One Parquet file."""

    path: str = Field(description="Path within the export, with `/`.")
    sha256: str = Field(pattern=_SHA256, description="SHA-256 of the file, lower-case hex.")
    size: int = Field(ge=0, description="Bytes.")
    records: int = Field(ge=1)
    first_offset: int = Field(ge=0)
    last_offset: int = Field(ge=0)


class ExportedPartition(PlannedPartition):
    """One topic partition as it was exported."""

    records: int = Field(ge=0)
    root: str = Field(pattern=_SHA256, description="Merkle tree hash (RFC 6962) of its records, lower-case hex.")
    files: tuple[ExportFile, ...] = Field(description="Files in the order of their offsets.")

    @model_validator(mode="after")
    def _files_lie_where_they_belong(self) -> Self:
        for file in self.files:
            if file.path != f"{self.folder}/{file_name(file.first_offset)}":
                raise ValueError(f"path {file.path!r} is not that of a file of {self.name}")
        return self


class ExportManifest(Strict):
    """A complete export."""

    format: int = Field(description="Version of folder layout, columns and leaf encoding.")
    software: str = Field(description="Program and version that wrote the export.")
    cluster_id: str
    planned_at: AwareDatetime = Field(description="Time at which the range of the export was fixed.")
    completed_at: AwareDatetime
    partitions: tuple[ExportedPartition, ...]

    @property
    def records(self) -> int:
        """Number of records in all partitions."""
        return sum(partition.records for partition in self.partitions)


_Document = TypeVar("_Document", ExportPlan, ExportManifest)


def file_name(first_offset: int) -> str:
    """Name of the file that starts at this offset; names sort in the order of offsets."""
    return f"{first_offset:020d}.parquet"


def read_plan(folder: Path) -> ExportPlan | None:
    """Return the plan of an unfinished export; None if there is none. Raises Unusable."""
    return _read(folder / PLAN, ExportPlan)


def read_manifest(folder: Path) -> ExportManifest | None:
    """Return the manifest; None if the export is not complete. Raises Unusable."""
    return _read(folder / MANIFEST, ExportManifest)


def _read(path: Path, model: type[_Document]) -> _Document | None:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "(whole)"
        raise Unusable(
            f"{path}: this is not the {path.stem} of an export: {where}: {first['msg']}; restore the file"
        ) from None
    if document.format != FORMAT:
        raise Unusable(
            f"{path}: format {document.format} is unknown to this version, which reads {FORMAT}; use the "
            "version that wrote it"
        )
    return document
