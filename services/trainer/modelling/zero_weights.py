"""Refuses matrices of nothing but zeros, as a download leaves them that reserved the file and broke off: they train, and mean nothing.

Of each matrix only the first values are read unless these are zero.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.trainer.modelling.base_files import BaseFault
from services.trainer.modelling.weight_files import StoredTensor, plain

_FIRST, _BLOCK = 2**12, 2**20
_MINUS = 0x80
"""Highest byte of a negative zero."""
_AROUND = 64
"""Bytes before and behind a tensor by which a hole in the file is told from a matrix that was saved as zeros."""
_WRITES = ("o_proj", "down_proj", "c_proj", "out_proj", "fc_out", "dense", "dense_4h_to_h")
"""Last parts of the names of matrices through which a layer adds to its input. Models that were made deeper have zeros there in the new
layers, so that these change nothing at first (LLaMA Pro, Wu et al. 2024)."""
_REMEDY = "download the file again and compare its SHA-256 with the publisher's, or name another base model"


def refuse_zeros(folder: Path, tensors: Iterable[StoredTensor]) -> None:
    """Raise BaseFault if a weight matrix is zero as a whole. Vectors, and the biases of experts, may be."""
    by_file: dict[str, set[str]] = {}
    for tensor in tensors:
        if len(tensor.shape) > 1 and min(tensor.shape) > 1 and not tensor.name.endswith("bias"):
            by_file.setdefault(tensor.file, set()).add(tensor.name)
    found = sorted((name, file) for file, names in sorted(by_file.items()) for name in _zeros(folder / file, names))
    if found:
        name, file = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise BaseFault(f"every value of its weight {plain(name)} in {file} is zero{more}", _REMEDY)


def _zeros(file: Path, names: set[str]) -> Iterator[str]:
    with file.open("rb") as opened:
        begin = 8 + int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(begin - 8))
        for name in names:
            first, end = (begin + offset for offset in header[name]["data_offsets"])
            width = (end - first) // math.prod(header[name]["shape"])
            if _zero(file, first, end, width) and not _deliberate(file, name, begin, first, end, width):
                yield name


def _deliberate(file: Path, name: str, begin: int, first: int, end: int, width: int) -> bool:
    """Whether a matrix of zeros begins a layer that changes nothing: what lies around it in the file is not zero."""
    writes = name.removesuffix(".weight").rpartition(".")[2] in _WRITES
    around = (max(begin, first - _AROUND), first), (end, min(file.stat().st_size, end + _AROUND))
    return writes and not any(_zero(file, *part, width) for part in around if part[0] < part[1])


def _zero(file: Path, first: int, end: int, width: int) -> bool:
    """Whether a part of a file is zero, as numbers of `width` bytes of either sign; no more than a block is in memory."""
    with file.open("rb") as opened:
        opened.seek(first)
        size = _FIRST
        while first < end:
            block = opened.read(min(size, end - first))
            if not block or (block != bytes(len(block)) and not _signs(block, width)):
                return False
            first, size = first + len(block), _BLOCK
    return True


def _signs(block: bytes, width: int) -> bool:
    """Whether a block has nothing but zeros of both signs."""
    return block.count(0) + block[width - 1 :: width].count(_MINUS) == len(block)
