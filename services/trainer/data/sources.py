"""Reads a data set from its files, and reports file, line and remedy for what cannot be read."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from schemas.lines import Split
from schemas.reasons import Reason
from schemas.recipes import DatasetSettings
from services.chassis.executor.child import UserFault
from services.chassis.storage.references import ReferenceFault, require_inside, resolve
from services.chassis.storage.sources.allowed import AllowedSources
from services.trainer.data.hub import read_hub
from services.trainer.data.raw import RawRow, fault_of, kind_of, named

_EXTENSIONS: Mapping[str, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "csv": (".csv",),
    "parquet": (".parquet",),
}
_FAULTS_AT_MOST = 5


def read(settings: DatasetSettings, cache: Path, allowed: AllowedSources) -> list[RawRow] | dict[Split, list[RawRow]]:
    """Read all rows of the one file that the reference names, or the rows of each split that the settings name.

    Raises UserFault if the data set or a split is missing, or a file cannot be parsed as its format. Messages name
    positions only, never content, since the author of the job may not be allowed to read the data.
    """
    try:
        path = resolve(settings.reference, cache, allowed, "dataset")
        if settings.format == "hub":
            require_inside(path, cache, allowed)
            return read_hub(settings, path, cache)
        if path.is_file():
            return list(_read_file(path, settings.format))
        files = {split: _file_of(path, name, settings) for split, name in named(settings)}
        for file in files.values():
            require_inside(file, cache, allowed)
    except ReferenceFault as fault:
        raise UserFault(fault_of("reference", settings.reference, fault.reason, fault.remedy)) from fault
    return {split: list(_read_file(file, settings.format)) for split, file in files.items()}


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


def _read_file(path: Path, form: str) -> Iterator[RawRow]:
    match form:
        case "jsonl":
            return _read_jsonl(path)
        case "json":
            return _read_json(path)
        case "csv":
            return _read_csv(path)
    return _read_parquet(path)


def _read_jsonl(path: Path) -> Iterator[RawRow]:
    faults: list[Reason] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path.name} line {number}"
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                faults.append(_unreadable(place, _no_json(error), "correct or remove the line"))
            else:
                if isinstance(values, dict):
                    yield RawRow(place, values)
                else:
                    what = f"one JSON object per line is expected, this is {kind_of(values)}"
                    hint = "; an array in one file is dataset.format json" if isinstance(values, list) else ""
                    faults.append(_unreadable(place, what, f"write one object per line{hint}"))
            if len(faults) == _FAULTS_AT_MOST:
                break
    if faults:
        raise UserFault(*faults)


def _read_json(path: Path) -> Iterator[RawRow]:
    try:
        rows = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        what = _no_json(error)
        raise UserFault(_unreadable(path.name, what, "correct it; for one object per line use format jsonl")) from error
    if not isinstance(rows, list):
        raise UserFault(
            _unreadable(path.name, f"an array of objects is expected, this is {kind_of(rows)}", "write an array")
        )
    for number, values in enumerate(rows, 1):
        place = f"{path.name} element {number}"
        if not isinstance(values, dict):
            raise UserFault(_unreadable(place, f"an object is expected, this is {kind_of(values)}", "correct the element"))
        yield RawRow(place, values)


def _read_csv(path: Path) -> Iterator[RawRow]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for values in reader:
                place = f"{path.name} line {reader.line_num}"
                if None in values or None in values.values():
                    what = f"the header has {len(reader.fieldnames or ())} fields, this line does not"
                    raise UserFault(_unreadable(place, what, "quote fields that contain commas or line breaks"))
                yield RawRow(place, values)
        except (csv.Error, UnicodeDecodeError) as error:
            place = f"{path.name} after line {reader.line_num}"
            what = "this is not CSV" if isinstance(error, csv.Error) else _no_utf_8(error)
            raise UserFault(_unreadable(place, what, "write UTF-8 with quoted fields")) from error


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        what = f"this is not a readable Parquet file ({type(error).__name__})"
        raise UserFault(_unreadable(path.name, what, "correct dataset.format")) from error
    for number, values in enumerate(rows, 1):
        yield RawRow(f"{path.name} row {number}", values)


def _no_json(error: Exception) -> str:
    """The position at which JSON parsing fails, without the content there."""
    match error:
        case UnicodeDecodeError():
            return f"this is not JSON: {_no_utf_8(error)}"
        case json.JSONDecodeError():
            return f"this is not JSON: {error.msg[:1].lower()}{error.msg[1:]}, column {error.colno}"
    return f"this is not readable JSON ({type(error).__name__})"


def _no_utf_8(error: UnicodeDecodeError) -> str:
    return f"byte {error.start} is not UTF-8"


def _unreadable(place: str, message: str, remedy: str) -> Reason:
    return Reason(field="dataset.reference", value=place, message=message, remedy=remedy)
