"""Reads the headers of a base model's safetensors files, and says in words which file is missing, half or of another format.

A header names every tensor with its type, its shape and its place in the file. Weights are read only where two may be one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.trainer.modelling.base_files import BaseFault

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LFS = b"version https://git-lfs.github.com/spec/"
_TEXT_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_OTHER_FORMATS: tuple[tuple[str, str], ...] = (
    ("*.bin", "pickle"), ("*.pt", "pickle"), ("*.pth", "pickle"), ("*.ckpt", "pickle"), ("*.gguf", "GGUF"), ("*.h5", "HDF5"),
    ("*.msgpack", "Flax"), ("*.onnx", "ONNX"), ("*.npz", "NumPy"),
)  # fmt: skip
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_ROWS_AT_ONCE = 4096
_DOWNLOAD_AGAIN = "download the file again, with git-lfs if the folder is a clone"
_PLAIN = re.compile(r"[\w.\-]{1,120}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What a header says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """The format's name of its type, for example BF16."""
    file: str
    """Name of the file that contains it."""


def stored_tensors(folder: Path) -> Mapping[str, StoredTensor]:
    """Return the tensors that loading the model would read, by name. Raises BaseFault."""
    files, index = weight_files(folder)
    found: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in _header(folder / file):
            if name in found:
                what = f"its files {found[name].file} and {file} both contain the weight {plain(name)}"
                raise BaseFault(what, "keep the files of one checkpoint only, and name each weight once")
            found[name] = tensor
    for name, file in index.items():
        if name not in found or found[name].file != file:
            what = f"its file {file} lacks the weight {plain(name)}, which {INDEX} looks for there"
            raise BaseFault(what, "download the files and their index again, from one revision of the model")
    return found


def equal_values(folder: Path, one: StoredTensor, other: StoredTensor) -> bool:
    """Return whether two matrices contain the same values, reading some rows of both at a time."""
    from safetensors import safe_open

    if one.shape != other.shape:
        return False
    with (
        safe_open(str(folder / one.file), framework="pt") as left,
        safe_open(str(folder / other.file), framework="pt") as right,
    ):
        first, second = left.get_slice(one.name), right.get_slice(other.name)
        parts = range(0, one.shape[0], _ROWS_AT_ONCE)
        return all(bool((first[at : at + _ROWS_AT_ONCE] == second[at : at + _ROWS_AT_ONCE]).all()) for at in parts)


def plain(name: str) -> str:
    """Return a name from a file as text for messages; odd ones are not repeated."""
    return name if _PLAIN.fullmatch(name) else "(a name with odd characters)"


def refuse_pointers(folder: Path) -> None:
    """Raise BaseFault if a file of the model is a pointer to it, as a clone without git-lfs leaves."""
    for pattern in ("*.safetensors", *_TEXT_FILES):
        for file in sorted(folder.glob(pattern)):
            if _begins(file, _LFS):
                what = f"its file {file.name} is a pointer of git-lfs, not the file itself"
                raise BaseFault(what, "run `git lfs pull` in the folder, or download the file")


def _begins(file: Path, mark: bytes) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(mark)) == mark


def weight_files(folder: Path) -> tuple[list[str], Mapping[str, str]]:
    """Return the names of the files with weights, and in which of them the index looks for each weight. Raises BaseFault."""
    for link in sorted(folder.glob("*.safetensors*")):
        if link.is_symlink() and not link.exists():
            what = (
                f"its file {link.name} is a link to a file that is not there, as in a hub's cache that was copied in part"
            )
            raise BaseFault(what, "copy the files that the links lead to, or download the model again")
    whole, sharded = (folder / SINGLE).is_file(), (folder / INDEX).is_file()
    if whole and sharded:
        what = f"it contains both {SINGLE} and {INDEX}, which may be two different checkpoints"
        raise BaseFault(what, f"remove {INDEX} with its files, or {SINGLE}, whichever is older")
    if any(_DISTRIBUTED.fullmatch(file.name) for file in folder.glob("shard-*.safetensors")):
        raise BaseFault("it is a distributed checkpoint, a part of the weights per process", _SAVE_WHOLE)
    if whole:
        return [SINGLE], {}
    if not sharded:
        raise _without_weights(folder)
    index = _index(folder / INDEX)
    for file in sorted(set(index.values())):
        if not (folder / file).is_file():
            what = f"its file {file} is missing, although {INDEX} looks for weights there"
            raise BaseFault(what, "download the missing file, or the whole model again")
    return sorted(set(index.values())), index


_SAVE_WHOLE = f"save the whole model with save_pretrained, as {SINGLE} or with {INDEX}"


def _without_weights(folder: Path) -> BaseFault:
    for pattern, name in _OTHER_FORMATS:
        if files := sorted(file.name for file in folder.glob(pattern) if file.name != "training_args.bin"):
            what = f"it has no weights in safetensors, only {files[0]} ({name})"
            remedy = "convert it to safetensors with save_pretrained"
            return BaseFault(
                what, f"{remedy}: pickled files can run code when they are loaded" if name == "pickle" else remedy
            )
    shards = sorted(file.name for file in folder.glob("model-*-of-*.safetensors"))
    if shards:
        return BaseFault(f"its weights are in parts such as {shards[0]}, but {INDEX} is missing", f"add {INDEX}")
    if others := sorted(file.name for file in folder.glob("*.safetensors")):
        what = f"its file {others[0]} is not under a name from which models are loaded"
        return BaseFault(what, f"{_SAVE_WHOLE}; its tensors need the names that transformers gives them")
    return BaseFault("it has no weights in safetensors", f"add {SINGLE}, or name a folder that contains it")


def _index(file: Path) -> dict[str, str]:
    try:
        listed = json.loads(file.read_bytes())["weight_map"]
        if not listed or not all(isinstance(part, str) and part for part in listed.values()):
            raise ValueError("no map from names to files")
        return dict(listed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseFault(f"its file {file.name} is not an index of weights", _DOWNLOAD_AGAIN) from error


def _header(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors of a file. Raises BaseFault if its size is not what its header says, or it has no valid header."""
    from safetensors import SafetensorError, safe_open

    if not file.stat().st_size:
        raise BaseFault(f"its file {file.name} is empty", _DOWNLOAD_AGAIN)
    try:
        with safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # it is no mapping
                view = opened.get_slice(name)
                yield name, StoredTensor(name, tuple(view.get_shape()), str(view.get_dtype()), file.name)
    except SafetensorError as error:
        raise BaseFault(f"its file {file.name} is {_damage(file)}", _DOWNLOAD_AGAIN) from error


def _damage(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            header = json.loads(opened.read(length)) if length < size else {}
            end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return "damaged, or no safetensors file"
    whole = 8 + length + end
    if size == whole:
        return "damaged: its header describes other tensors than there are, or types that are not known"
    return f"not whole: {size} of {whole} bytes" if size < whole else f"damaged: {size} bytes instead of {whole}"
