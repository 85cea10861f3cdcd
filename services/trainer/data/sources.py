"""Why: reads a data set as its owner stores it, and says file, line and remedy where it cannot be read."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.reasons import Reason, shown
from schemas.recipes import DatasetSettings
from services.chassis.executor.child import UserFault
from services.chassis.references import ReferenceFault, resolve
from services.trainer.data.rows import SPLITS, Split

_EXTENSIONS: Mapping[str, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "csv": (".csv",),
    "parquet": (".parquet",),
}
_FAULTS_AT_MOST = 5
_NAMES_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it is stored."""

    place: str
    """File and line for a message, for example `train.jsonl line 3`."""
    values: Mapping[str, object]


def read(settings: DatasetSettings, cache: Path) -> list[RawRow] | dict[Split, list[RawRow]]:
    """All rows of the one file that the reference names, or the rows of each split that the settings name.

    Raises UserFault where the data set is missing, a split is missing or a file cannot be read as its format.
    """
    try:
        path = resolve(settings.reference, cache, "dataset")
    except ReferenceFault as fault:
        raise UserFault(_reason("reference", settings.reference, fault.reason, fault.remedy)) from fault
    if settings.format == "hub":
        return _read_hub(settings, path, cache)
    if path.is_file():
        return list(_read_file(path, settings.format))
    return {split: list(_read_file(_file_of(path, name, settings), settings.format)) for split, name in _named(settings)}


def _named(settings: DatasetSettings) -> Iterator[tuple[Split, str]]:
    for split in SPLITS:
        name: str | None = getattr(settings.split, split)
        if name is not None:
            yield split, name


def _file_of(folder: Path, name: str, settings: DatasetSettings) -> Path:
    extensions = _EXTENSIONS[settings.format]
    for extension in extensions:
        if (folder / f"{name}{extension}").is_file():
            return folder / f"{name}{extension}"
    there = sorted(file.name for file in folder.iterdir() if file.is_file())
    split = next(split for split, named in _named(settings) if named == name)
    raise UserFault(
        _reason(
            f"split.{split}",
            name,
            f"no file {name}{extensions[0]} in {settings.reference}; files there: {_listed(there)}",
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
                faults.append(_unreadable(place, f"this is no JSON: {error}", "correct or remove the line"))
            else:
                if isinstance(values, dict):
                    yield RawRow(place, values)
                else:
                    what = f"one JSON object per line is expected, this is {shown(values)}"
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
        what = f"this is no JSON: {error}"
        raise UserFault(_unreadable(path.name, what, "correct it; for one object per line use format jsonl")) from error
    if not isinstance(rows, list):
        raise UserFault(_unreadable(path.name, f"an array of objects is expected, this is {shown(rows)}", "write an array"))
    for number, values in enumerate(rows, 1):
        place = f"{path.name} element {number}"
        if not isinstance(values, dict):
            raise UserFault(_unreadable(place, f"an object is expected, this is {shown(values)}", "correct the element"))
        yield RawRow(place, values)


def _read_csv(path: Path) -> Iterator[RawRow]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for values in reader:
                place = f"{path.name} line {reader.line_num}"
                if None in values or None in values.values():
                    what = f"the header has {len(reader.fieldnames or ())} fields, this line has not"
                    raise UserFault(_unreadable(place, what, "quote fields that hold commas or line breaks"))
                yield RawRow(place, values)
        except (csv.Error, UnicodeDecodeError) as error:
            place = f"{path.name} after line {reader.line_num}"
            raise UserFault(_unreadable(place, f"this is no CSV: {error}", "write UTF-8 with quoted fields")) from error


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserFault(_unreadable(path.name, f"this is no Parquet: {error}", "correct dataset.format")) from error
    for number, values in enumerate(rows, 1):
        yield RawRow(f"{path.name} row {number}", values)


def _read_hub(settings: DatasetSettings, path: Path, cache: Path) -> dict[Split, list[RawRow]]:
    """A snapshot of a hub repository, read by the hub's own rules for names of files and splits."""
    import datasets

    if not path.is_dir():
        what, remedy = "format hub reads a folder as the hub lays it out, this is a file", "use the format of the file"
        raise UserFault(_reason("format", settings.format, what, remedy))
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(str(path), cache_dir=str(cache / "datasets"))
    except (datasets.exceptions.DatasetsError, ValueError, FileNotFoundError) as error:
        what = f"the hub's reader cannot read it: {error}"
        raise UserFault(_reason("reference", settings.reference, what, "name a data set of plain files")) from error
    splits: dict[Split, list[RawRow]] = {}
    for split, name in _named(settings):
        if name not in loaded:
            what = f"no split {name} in {settings.reference}; splits there: {_listed(sorted(map(str, loaded)))}"
            remedy = "name one of them, or set the split to null (not for train)"
            raise UserFault(_reason(f"split.{split}", name, what, remedy))
        splits[split] = [RawRow(f"{name} row {number}", dict(values)) for number, values in enumerate(loaded[name], 1)]
    return splits


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_AT_MOST} more" if len(names) > _NAMES_AT_MOST else ""
    return (", ".join(names[:_NAMES_AT_MOST]) or "none") + more


def _unreadable(place: str, message: str, remedy: str) -> Reason:
    return Reason(field="dataset.reference", value=place, message=message, remedy=remedy)


def _reason(field: str, value: str, message: str, remedy: str) -> Reason:
    return Reason(field=f"dataset.{field}", value=shown(value), message=message, remedy=remedy)
