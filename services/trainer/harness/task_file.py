"""Reads task files of lm-evaluation-harness as plain descriptions: what would run code or read other files is refused.

The harness's own reader imports the functions that a file names. So files are read here, and the harness gets their values.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.chassis.executor.child import ChildTask
from services.chassis.storage.references import ReferenceFault, resolve
from services.trainer.harness.library import harness_version, task_fault, tasks_folder
from services.trainer.harness.task_keys import refusal_of

_BYTES = 2**20
_FILES = 20
"""The most files that a task consists of by inclusion."""
_OWN = re.compile(r"[\w+-]+(?:\.[\w+-]+)*")
_CODE = "it names Python code, which is never run", "name a task that needs none, or describe the step by a template"


@dataclass(frozen=True)
class TaskFile:
    """What a task file says, with the files that it includes."""

    reference: str
    folder: Path
    """Where relative names in it start."""
    config: Mapping[str, Any]
    sha256: str
    """Digest of all its files."""

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.config["task"])


class _Code(Exception):
    """A file has a tag of YAML that is no plain value."""


class _Loader(yaml.SafeLoader):
    """Reads plain values only."""


def _refuse_tag(loader: yaml.Loader, suffix: str, node: yaml.Node) -> None:
    raise _Code


_Loader.add_multi_constructor("!", _refuse_tag)
_Loader.add_multi_constructor("tag:yaml.org,2002:python", _refuse_tag)


def read_task(reference: str, task: ChildTask) -> TaskFile:
    """Read a task file and check it. Raises UserFault; the message tells nothing of what the file contains."""
    path, own = _located(reference, task)
    digest = hashlib.sha256()
    config = _Reader(reference, task, own, digest).merged(path)
    if refusal := refusal_of(config):
        raise task_fault(reference, *refusal)
    return TaskFile(reference, path.parent, config, digest.hexdigest())


class _Reader:
    """Reads one file with those that it includes; in case of doubt, values of the including file are taken."""

    def __init__(self, reference: str, task: ChildTask, own: bool, digest: Any) -> None:
        self._reference, self._task, self._own, self._digest = reference, task, own, digest
        self._seen: set[Path] = set()

    def merged(self, path: Path) -> dict[str, Any]:
        if path in self._seen or len(self._seen) >= _FILES:
            raise task_fault(self._reference, f"its files include each other, or more than {_FILES}", "include fewer files")
        self._seen.add(path)
        said = self._parsed(path)
        found: dict[str, Any] = {}
        for name in _names(said.pop("include", None)):
            found |= {key: value for key, value in self.merged(self._included(path, name)).items() if key != "task_list"}
        return found | said

    def _parsed(self, path: Path) -> dict[str, Any]:
        try:
            content = path.read_bytes() if path.stat().st_size <= _BYTES else None
            said = None if content is None else yaml.load(content, Loader=_Loader)  # noqa: S506  # plain values only
        except _Code as error:
            raise task_fault(self._reference, *_CODE) from error
        except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
            what = f"it is no YAML that can be read ({type(error).__name__})"
            raise task_fault(self._reference, what, "name a task file of lm-evaluation-harness") from error
        if content is None or not isinstance(said, dict) or not all(isinstance(key, str) for key in said):
            what = f"it is no task file, which is YAML with named values, of at most {_BYTES // 2**20} MiB"
            raise task_fault(self._reference, what, "name a task file of lm-evaluation-harness")
        self._digest.update(hashlib.sha256(content).digest())
        return said

    def _included(self, path: Path, name: object) -> Path:
        found = (path.parent / str(name)).resolve()
        if self._own:
            if found.is_relative_to(tasks_folder()) and found.is_file():
                return found
            raise task_fault(self._reference, "a file that it includes is missing", "name another task")
        return _file(self._reference, str(found), self._task, "a file that it includes cannot be read: ")


def _names(given: object) -> Iterator[object]:
    if given is not None:
        yield from given if isinstance(given, list) else [given]


def _located(reference: str, task: ChildTask) -> tuple[Path, bool]:
    """Return the file, and whether it is one of those that the harness comes with."""
    if not _OWN.fullmatch(reference) or reference.endswith((".yaml", ".yml")):
        relative = "://" not in reference and not reference.startswith((".", "/", "~"))
        return _file(reference, f"./{reference}" if relative else reference, task), False
    found = _own(reference)
    if found is not None:
        return found, True
    what = f"lm-evaluation-harness {harness_version()} has no task of this name"
    raise task_fault(reference, what, "correct the name, or name the path of a task file, which ends in .yaml")


def _own(name: str) -> Path | None:
    """Return the harness's own file for a task or group: as in the harness, the first of several."""
    says = re.compile(
        rf"""^["']?(?:task|group)["']?:[ \t]*(["']?){re.escape(name)}\1[ \t]*(?:#.*)?$""".encode(), re.MULTILINE
    )
    files = sorted(tasks_folder().rglob("*.yaml"), key=Path.as_posix)
    return next((file for file in files if says.search(file.read_bytes())), None)


def _file(reference: str, path: str, task: ChildTask, what: str = "") -> Path:
    try:
        found = resolve(path, task.cache, task.allowed, "dataset")
    except ReferenceFault as fault:
        raise task_fault(reference, f"{what}{fault.reason}", fault.remedy) from fault
    if not found.is_file():
        raise task_fault(reference, f"{what}this is a folder", "name the task file in it")
    return found
