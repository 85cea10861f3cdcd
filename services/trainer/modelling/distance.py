"""Measures how far the weights of two artifacts are apart, tensor by tensor, so that memory holds two of them at a time."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open


class WeightDistance(NamedTuple):
    """How far two sets of weights are apart."""

    largest: float
    """The largest absolute difference of two weights; infinite where one is not a number, or shapes differ."""
    tensor: str
    """Where it is."""
    only_one: tuple[str, ...]
    """Names of tensors that only one of them has."""


def distance(one: Path, other: Path) -> WeightDistance:
    """Return how far the weights in two folders of safetensors files are apart."""
    with ExitStack() as open_files:
        left, right = (_tensors(folder, open_files) for folder in (one, other))
        largest, where = 0.0, ""
        for name in sorted(left.keys() & right.keys()):
            difference = _difference(left[name].get_tensor(name), right[name].get_tensor(name))
            if difference > largest or not where:
                largest, where = difference, name
    return WeightDistance(largest, where, tuple(sorted(left.keys() ^ right.keys())))


def _tensors(folder: Path, open_files: ExitStack) -> dict[str, Any]:
    """Return the open file of each tensor by its name."""
    return dict(_named(folder, open_files))


def _named(folder: Path, open_files: ExitStack) -> Iterator[tuple[str, Any]]:
    for path in sorted(folder.glob("*.safetensors")):
        file = open_files.enter_context(safe_open(path, framework="pt"))
        for name in file.keys():  # noqa: SIM118 (it is no mapping)
            yield name, file


def _difference(one: Any, other: Any) -> float:
    if one.shape != other.shape:
        return float("inf")
    if one.numel() == 0:
        return 0.0
    apart = (one.double() - other.double()).abs()
    return float("inf") if bool(apart.isnan().any()) else float(apart.max())
