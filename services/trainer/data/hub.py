"""Reads data sets in the hub's layout with the hub's own library, restricted to the files of the folder.

A data set's card may name its files by any path or URL, and columns may be images or audio that the library opens by path.
So names that lead out of the folder are refused before the library sees them, and columns are read as they are stored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.lines import Split
from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.trainer.data.padding import row_without_nulls
from services.trainer.data.raw import RawRow, StoredRows, fault_of, named

FORMATS = ("parquet", "json", "csv", "text", "arrow")
_BATCH = 1000
_CARDS = ("README.md", ".huggingface.yaml")
_OUTSIDE = "its card names files outside the data set", "name only files of the data set in its card"


class HubFault(Exception):
    """A data set cannot be read; the message does not repeat the library's, since that quotes data."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message, self.remedy = message, remedy


def read_hub(settings: DatasetSettings, path: Path, cache: Path) -> dict[Split, StoredRows]:
    """Return the rows of each split. Raises UserFault."""
    if not path.is_dir():
        what, remedy = (
            "format hub needs a folder with the layout of the hub, and this is a file",
            "use the format of the file",
        )
        raise UserFault(fault_of("format", settings.format, what, remedy))
    try:
        loaded = hub_splits(path, cache)
    except HubFault as fault:
        raise UserFault(fault_of("reference", settings.reference, fault.message, fault.remedy)) from fault
    splits: dict[Split, StoredRows] = {}
    for split, name in named(settings):
        if name not in loaded:
            what = f"none of the {len(loaded)} splits in {settings.reference} is named {name}"
            remedy = "name one of its splits, or set the split to null (not for train)"
            raise UserFault(fault_of(f"split.{split}", name, what, remedy))
        splits[split] = StoredRows(_rows(name, loaded[name].data), len(loaded[name]))
    return splits


def hub_splits(path: Path, cache: Path, name: str | None = None) -> Mapping[str, Any]:
    """Return the splits of a folder with the layout of the hub; `name` is one of the configurations that its card has."""
    import datasets

    def builder() -> Any:
        if not all(_stays(file) for file in _named_files(path)):
            raise HubFault(*_OUTSIDE)
        found = datasets.load_dataset_builder(str(path), name, cache_dir=str(cache / "datasets"))
        if _format_of(found) not in FORMATS:
            what, remedy = f"its format is not one of {', '.join(FORMATS)}", "name a data set with such files"
            raise HubFault(what, remedy)
        if not all(Path(file).is_relative_to(path) for files in found.config.data_files.values() for file in files):
            raise HubFault(*_OUTSIDE)
        return found

    return _splits(builder)


def file_splits(kind: str, files: Mapping[str, Sequence[Path]], cache: Path) -> Mapping[str, Any]:
    """Return the splits that consist of these files, of one of `FORMATS`."""
    import datasets

    named_files = {split: list(map(str, paths)) for split, paths in files.items()}
    return _splits(lambda: datasets.load_dataset_builder(kind, data_files=named_files, cache_dir=str(cache / "datasets")))


def _splits(builder: Callable[[], Any]) -> Mapping[str, Any]:
    import datasets

    datasets.disable_progress_bars()
    try:
        made = builder()
        made.download_and_prepare()
        loaded: Mapping[str, Any] = made.as_dataset()
    except Exception as error:  # the library raises whatever its parsers raise
        if isinstance(error, HubFault | OSError) and not isinstance(error, FileNotFoundError):
            raise
        what = f"the hub's reader cannot read it ({type(error).__name__})"
        raise HubFault(what, "name a data set of plain files") from error
    return loaded


def _rows(name: str, table: Any) -> Iterator[RawRow]:
    """Yield the rows of a memory-mapped Arrow table, of which one batch is in memory."""
    number = 0
    for batch in table.to_batches(max_chunksize=_BATCH):
        for values in batch.to_pylist():
            number += 1
            yield RawRow(f"{name} row {number}", row_without_nulls(values))


def _format_of(builder: Any) -> str:
    return type(builder).__module__.rpartition(".")[2]


def _named_files(folder: Path) -> Iterator[object]:
    """Yield every file and folder that the data set's card names."""
    import yaml
    from huggingface_hub import DatasetCardData, RepoCard

    for card in (folder / name for name in _CARDS):
        if not card.is_file():
            continue
        if card.suffix == ".md":
            found: Any = RepoCard.load(card, ignore_metadata_errors=True).data
        else:
            found = DatasetCardData(**(yaml.safe_load(card.read_text(encoding="utf-8")) or {}))
        said = found.to_dict()
        for config in said.get("configs") or ():
            yield from _names(config.get("data_files")) if isinstance(config, Mapping) else (None,)
            yield from _names(config.get("data_dir"))


def _names(given: Any) -> Iterator[object]:
    """Yield all names in a value of the card: a name, a list of names, or splits with names, nested; split names count,
    too."""
    match given:
        case None:
            return
        case Mapping():
            for value in given.values():
                yield from _names(value)
        case list() | tuple():
            for one in given:
                yield from _names(one)
        case _:
            yield given


def _stays(name: object) -> bool:
    """Return whether a name or pattern stays below the data set's folder."""
    return (
        isinstance(name, str)
        and not name.startswith(("/", "~"))
        and "://" not in name
        and "::" not in name
        and "\\" not in name
        and ".." not in name.split("/")
    )
