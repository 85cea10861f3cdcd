"""Reads the data of a task under the rules of data sets, and stores it as plain tables, from which it is measured later."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.reasons import shown
from services.chassis.executor.child import ChildTask
from services.chassis.storage.digests import file_sha256
from services.chassis.storage.references import ReferenceFault, require_inside, resolve
from services.trainer.data.hub import FORMATS, HubFault, file_splits, hub_splits
from services.trainer.harness.library import task_fault
from services.trainer.harness.task_file import TaskFile
from services.trainer.harness.task_keys import SPLITS


def store_data(file: TaskFile, folder: Path, task: ChildTask) -> dict[str, str]:
    """Store every split that the task names; return their digests by name. Raises UserFault if the data or a split is missing.

    Tables are stored without the types of the hub's library: an image or a sound is never opened by the path in a row.
    """
    import pyarrow.parquet as pq

    try:
        loaded = _loaded(file, task)
    except HubFault as fault:
        raise task_fault(file.reference, f"its data: {fault.message}", fault.remedy) from fault
    digests: dict[str, str] = {}
    for name in _splits_of(file.config):
        if name not in loaded:
            what = f"none of the {len(loaded)} splits of its data is {shown(name)}"
            raise task_fault(file.reference, what, "correct the names of its splits, or the files of its data")
        if not len(loaded[name]):
            raise task_fault(file.reference, f"the split {shown(name)} of its data has no row", "add rows")
        path = folder / f"{len(digests)}.parquet"
        pq.write_table(loaded[name].data.table.replace_schema_metadata(None), path)
        digests[name] = file_sha256(path)
    return digests


def stored_data(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the splits that `store_data` stored, in the order of their digests."""
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    tables = (pq.read_table(folder / f"{number}.parquet") for number in range(len(names)))
    return {name: Dataset(InMemoryTable(table)) for name, table in zip(names, tables, strict=True)}


def _splits_of(config: Mapping[str, Any]) -> list[str]:
    fewshot = config.get("fewshot_config") or {}
    named = [*(config.get(name) for name in SPLITS), fewshot.get("split")]
    return list(dict.fromkeys(name for name in named if isinstance(name, str)))


def _loaded(file: TaskFile, task: ChildTask) -> Mapping[str, Any]:
    kind, given = str(file.config["dataset_path"]), file.config.get("dataset_kwargs") or {}
    if kind in FORMATS:
        files = dict(_files(file, given.get("data_files"), task))
        if not files:
            raise task_fault(file.reference, "its data: it names no files (data_files)", "name a file for each split")
        return file_splits(kind, files, task.cache)
    revision = given.get("revision")
    folder = _resolved(file, f"{kind}@{revision}" if revision else kind, task, own=kind.startswith("."))
    if not folder.is_dir():
        raise task_fault(
            file.reference, "its data: dataset_path is a file", f"name it in data_files of {', '.join(FORMATS)}"
        )
    configuration = file.config.get("dataset_name")
    return hub_splits(folder, task.cache, None if configuration is None else str(configuration))


def _files(file: TaskFile, given: object, task: ChildTask) -> Iterator[tuple[str, list[Path]]]:
    """Yield the files of each split; the library takes files without a split as those of `train`."""
    by_split = given if isinstance(given, Mapping) else {"train": given}
    for split, names in by_split.items():
        listed = names if isinstance(names, list) else [names]
        paths = [_resolved(file, name, task, own=True) for name in listed if isinstance(name, str)]
        if not paths or len(paths) < len(listed) or not all(path.is_file() for path in paths):
            raise task_fault(file.reference, "its data: data_files are no names of files", "name a file for each split")
        yield str(split), paths


def _resolved(file: TaskFile, name: str, task: ChildTask, *, own: bool) -> Path:
    """Resolve a reference in a task file; if it is its `own`, a relative path starts in the folder of the task file."""
    if own and "://" not in name and not name.startswith("~"):
        name = str(file.folder / name)
    try:
        path = resolve(name, task.cache, task.allowed, "dataset")
        require_inside(path, task.cache, task.allowed)
    except ReferenceFault as fault:
        raise task_fault(file.reference, f"its data: {fault.reason}", fault.remedy) from fault
    return path
