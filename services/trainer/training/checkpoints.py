"""A run that was killed at any instruction goes on from its last complete checkpoint, and never from a damaged one.

A checkpoint is a folder with a manifest of sizes and digests, written last; the folder gets its name when all of it is on
disk. Each run writes below its own attempt and lease and reads those of all runs of the step whose recipe is the same.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from schemas.artifacts import ManifestEntry
from schemas.base import Frozen
from services.chassis.executor.folders import UNFINISHED
from services.chassis.storage.digests import entry_of, file_sha256
from services.chassis.storage.durable import sync
from services.chassis.storage.stores import writing

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_CURVE = "curve.jsonl"
_PREFIX = "step-"
_KEPT = 2
"""Checkpoints that a run keeps of its own: the newest, and one more in case that one is damaged."""

Tensors = Mapping[str, torch.Tensor]
CurvePoint = Mapping[str, float]


class _Manifest(Frozen):
    recipe: str = Field(description="Digest of the recipe that the run followed.")
    step: int = Field(description="Optimiser steps done.")
    files: tuple[ManifestEntry, ...] = Field(description="Every other file.")


@dataclass(frozen=True)
class Checkpoint:
    """Where a run had got to."""

    step: int
    """Optimiser steps done."""
    tensors: Mapping[str, Tensors]
    """Named groups of tensors, as they were saved."""
    curve: Sequence[CurvePoint]
    """One point per step done."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one step of a job, as one run sees them."""

    root: Path
    """Of all runs: below it `<attempt>/<lease>/step-<number>/`."""
    own: Path
    """Of this run; nobody else writes here."""
    recipe: str
    """Digest of the recipe: the state of another recipe is nothing to go on from."""

    def save(self, step: int, groups: Mapping[str, Tensors], curve: Sequence[CurvePoint]) -> None:
        """Keep the state after `step` steps; when this returns it is durable. Older ones of this run are removed.

        Raises StorageFailure where there is no room for it; what was written of it is gone then, earlier ones stay.
        """
        temporary, target = self.own / f"{UNFINISHED}{step:08d}", self.own / f"{_PREFIX}{step:08d}"
        size = sum(tensor.numel() * tensor.element_size() for tensors in groups.values() for tensor in tensors.values())
        with writing(self.own, size):
            try:
                self._write(temporary, step, groups, curve)
                shutil.rmtree(target, ignore_errors=True)
                temporary.rename(target)
                sync(self.own)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        for old in sorted(self.own.glob(f"{_PREFIX}*"))[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _write(self, folder: Path, step: int, groups: Mapping[str, Tensors], curve: Sequence[CurvePoint]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, tensors in groups.items():
            flat = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(flat, folder / f"{name}.safetensors")
        write_curve(folder, curve)
        entries = tuple(_entry(path) for path in sorted(folder.iterdir()))
        manifest = _Manifest(recipe=self.recipe, step=step, files=entries)
        (folder / _MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
        sync(folder / _MANIFEST)
        sync(folder)

    def newest(self) -> Checkpoint | None:
        """The one with the most steps that is whole and follows our recipe; the log says why others are passed over."""
        for folder in sorted(self.root.glob(f"*/*/{_PREFIX}*"), key=lambda path: path.name, reverse=True):
            try:
                found = self._read(folder)
            except (OSError, ValueError) as error:
                _log.warning("checkpoint %s is not used: %s", folder, error)
            else:
                _log.info("going on from checkpoint %s", folder)
                return found
        return None

    def _read(self, folder: Path) -> Checkpoint:
        manifest = _Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
        if manifest.recipe != self.recipe:
            raise ValueError("its data, base model, seed or settings were others")
        for entry in manifest.files:
            path = folder / entry.path
            if path.stat().st_size != entry.size or file_sha256(path) != entry.sha256:
                raise ValueError(f"{entry.path} is not what the manifest says")
        names = [entry.path for entry in manifest.files if entry.path.endswith(".safetensors")]
        tensors = {name.removesuffix(".safetensors"): load_file(folder / name) for name in names}
        curve = [json.loads(line) for line in (folder / _CURVE).read_text(encoding="utf-8").splitlines()]
        return Checkpoint(manifest.step, tensors, curve)


def write_curve(folder: Path, points: Sequence[CurvePoint]) -> None:
    """`curve.jsonl`: one line per step."""
    (folder / _CURVE).write_text("".join(json.dumps(point) + "\n" for point in points), encoding="utf-8")


def _entry(path: Path) -> ManifestEntry:
    sync(path)
    return entry_of(path, path.name)
