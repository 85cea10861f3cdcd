"""Chooses the files of a model in Hugging Face layout: weights in safetensors and what loading them needs; the rest is left out and named.

The model card is left out, too: it is no part of what runs, and a version that was exported with its card is the same when it comes back.
"""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from schemas.reasons import first_of, shown
from services.chassis.storage.artifacts.errors import MANIFEST
from services.chassis.storage.artifacts.manifest import safe_path
from services.chassis.storage.model_files import ALLOWED
from services.language_models.adapters import CONFIG
from services.trainer.modelling.adapter import WEIGHTS
from services.trainer.modelling.base_files import BaseFault
from services.trainer.modelling.weight_files import INDEX, SINGLE, weight_files

_TAKEN = ALLOWED - {".md", ".gguf", ".safetensors"}
_INDEX = ".safetensors.index.json"
_NAMED = 5
_BYTES_AT_MOST = 512 * 1024 * 1024
"""The largest file besides the weights; tokenizers of large vocabularies have 50 MB."""


class Chosen(NamedTuple):
    """The files to take, and the names of those that are left out."""

    adapter: bool
    """Whether the folder contains an adapter, else a whole model."""
    files: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def remark(self) -> str | None:
        """Which files are left out, in words; None if none is."""
        return first_of([shown(name) for name in self.left_out], _NAMED) if self.left_out else None


def chosen(folder: Path) -> Chosen:
    """Return which files of a folder are imported. Raises BaseFault if they are no model that can be."""
    adapter = (folder / CONFIG).is_file()
    weights = {WEIGHTS} if adapter else _weights(folder)
    if adapter:
        _refuse_both(folder)
        _refuse_weightless(folder)
    taken, left = list[str](), list[str]()
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        (taken if _is_taken(entry, weights) else left).append(entry.name + ("/" if entry.is_dir() else ""))
    return Chosen(adapter, tuple(taken), tuple(left))


def _is_taken(entry: Path, weights: set[str]) -> bool:
    if entry.name in weights:
        return True
    if not entry.is_file() or not safe_path(entry.name) or entry.name.endswith(_INDEX) or entry.name == MANIFEST:
        return False
    if PurePosixPath(entry.name).suffix not in _TAKEN:
        return False
    if (size := entry.stat().st_size) > _BYTES_AT_MOST:
        what = f"its file {entry.name} has {size} bytes, more than the {_BYTES_AT_MOST} that a file besides the weights may have"
        raise BaseFault(what, "remove it from the folder if the model does not need it")
    return True


def _weights(folder: Path) -> set[str]:
    if not (folder / "config.json").is_file():
        what = f"it contains neither config.json, as a model does, nor {CONFIG}, as an adapter does"
        raise BaseFault(what, "name a folder in Hugging Face layout, as save_pretrained writes it")
    files, index = weight_files(folder)
    return {*files, *([INDEX] if index else [])}


def _refuse_both(folder: Path) -> None:
    if any((folder / name).exists() for name in (SINGLE, INDEX)):
        what = f"it contains an adapter ({CONFIG}) and a whole model, and one of both is imported"
        raise BaseFault(what, "put them into two folders, and import each")


def _refuse_weightless(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    pickled = (folder / "adapter_model.bin").exists()
    what = "only adapter_model.bin (pickle), which can run code when it is loaded" if pickled else "none"
    raise BaseFault(f"it has no {WEIGHTS}, {what}", "save the adapter again with save_pretrained, which writes safetensors")
