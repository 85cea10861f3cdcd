"""Reads a data set from its files, and reports file, line and remedy for what cannot be read."""

from collections.abc import Mapping
from pathlib import Path

from schemas.datasets import dataset_reference
from schemas.lines import Split
from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.chassis.storage.references import ReferenceFault, require_inside, resolve
from services.chassis.storage.sources.allowed import AllowedSources
from services.trainer.data.files import read_file
from services.trainer.data.hub import read_hub
from services.trainer.data.raw import StoredRows, fault_of, named

_EXTENSIONS: Mapping[str, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"),
    "json": (".json",),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet",),
}
Source = StoredRows | dict[Split, StoredRows]
"""Rows that are not divided into splits yet, or the rows of each split."""


def read(settings: DatasetSettings, cache: Path, allowed: AllowedSources) -> Source:
    """Return the rows of the one file that the reference names, or of each split that the settings name, to be read once.

    Raises UserFault if the data set or a split is missing; so does reading on if a file is not of its format. Messages name
    positions only, never content, since the author of the job may not be allowed to read the data.
    """
    if dataset_reference(settings):
        what = "it names a registered data set, which only jobs read"
        raise UserFault(
            fault_of("reference", settings.reference, what, "write ./ before a path; name the original data to look at it")
        )
    try:
        path = resolve(settings.reference, cache, allowed, "dataset")
        if settings.format == "hub":
            require_inside(path, cache, allowed)
            return read_hub(settings, path, cache)
        if path.is_file():
            return read_file(path, settings.format)
        files = {split: _file_of(path, name, settings) for split, name in named(settings)}
        for file in files.values():
            require_inside(file, cache, allowed)
    except ReferenceFault as fault:
        raise UserFault(fault_of("reference", settings.reference, fault.reason, fault.remedy)) from fault
    return {split: read_file(file, settings.format) for split, file in files.items()}


def _file_of(folder: Path, name: str, settings: DatasetSettings) -> Path:
    extensions = _EXTENSIONS[settings.format]
    for extension in extensions:
        if (folder / f"{name}{extension}").is_file():
            return folder / f"{name}{extension}"
    there = sum(file.is_file() for file in folder.iterdir())
    split = next(split for split, wanted in named(settings) if wanted == name)
    raise UserFault(
        fault_of(
            f"split.{split}",
            name,
            f"none of the {there} files in {settings.reference} is named {name}{extensions[0]}",
            "name a file without its extension, set the split to null (not for train), or correct dataset.format",
        )
    )
