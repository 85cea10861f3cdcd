"""Saves and reads checkpoints: a run killed at any instruction resumes from its last complete one, never a damaged one.

A checkpoint is a folder with a manifest of sizes and digests, which is written last; the folder is renamed into place when
all of it is on disk. Each run writes below its own attempt and lease, and reads those of all runs of the step with the same
recipe.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from schemas.artifacts import ManifestEntry
from schemas.base import Frozen
from schemas.lines import CURVE_FILE
from services.chassis.executor.folders import UNFINISHED
from services.chassis.storage.digests import entry_of, file_sha256
from services.chassis.storage.durable import sync
from services.chassis.storage.stores import writing
from services.trainer.engine.versions import Stretch, Versions, installed, refuse_other_release

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_PREFIX = "step-"
_KEPT = 2
"""Number of its own checkpoints that a run keeps: the newest, and one more in case that one is damaged."""

COMPLETE_AT_ONCE = _KEPT + 1
"""Those that a run keeps, and the one that it writes."""

Tensors = Mapping[str, torch.Tensor]
CurvePoint = Mapping[str, float]


class _Manifest(Frozen):
    recipe: str = Field(description="Digest of the recipe that the run followed.")
    step: int = Field(description="Optimiser steps done.")
    rate_factor: float = Field(default=1.0, description="Factor of the learning rate, less than 1 after a divergence.")
    trained_with: tuple[Stretch, ...] = Field(default=(), description="With which versions the steps were trained.")
    files: tuple[ManifestEntry, ...] = Field(description="All other files.")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after some steps."""

    step: int
    """Optimiser steps done."""
    tensors: Mapping[str, Tensors]
    """Named groups of tensors, as saved."""
    curve: Sequence[CurvePoint]
    """One point per completed step."""
    rate_factor: float = 1.0
    """Factor of the learning rate, less than 1 if the run once diverged."""
    trained_with: Sequence[Stretch] = ()
    """With which versions of the libraries the steps were trained; empty if that is not known."""
    folder: Path | None = None
    """Where it was read from; None before it is saved."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one step of a job, for one run."""

    root: Path
    """Folder of all runs, with `<attempt>/<lease>/step-<number>/` below it."""
    own: Path
    """Folder of this run; no other run writes here."""
    recipe: str
    """Digest of the recipe; a checkpoint of another recipe cannot be resumed."""
    versions: Versions = field(default_factory=installed)
    """The libraries that train now; a checkpoint of another major release of one of them cannot be resumed."""
    unfit: set[Path] = field(default_factory=set)
    """Folders that `skip` has left out."""

    def save(
        self,
        step: int,
        groups: Mapping[str, Tensors],
        curve: Sequence[CurvePoint],
        rate_factor: float = 1.0,
        trained_with: Sequence[Stretch] = (),
    ) -> None:
        """Save the state after `step` steps durably, and remove older checkpoints of this run.

        Raises StorageFailure if there is no room; the incomplete checkpoint is then removed, and earlier ones are kept.
        """
        temporary, target = self.own / f"{UNFINISHED}{step:08d}", self.own / f"{_PREFIX}{step:08d}"
        size = sum(tensor.numel() * tensor.element_size() for tensors in groups.values() for tensor in tensors.values())
        with writing(self.own, size):
            try:
                self._write(temporary, Checkpoint(step, groups, curve, rate_factor, trained_with))
                shutil.rmtree(target, ignore_errors=True)
                temporary.rename(target)
                self.unfit.discard(target)
                sync(self.own)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        for old in sorted(self.own.glob(f"{_PREFIX}*"))[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _write(self, folder: Path, state: Checkpoint) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, tensors in state.tensors.items():
            flat = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(flat, folder / f"{name}.safetensors")
        write_curve(folder, state.curve)
        entries = tuple(_entry(path) for path in sorted(folder.iterdir()))
        manifest = _Manifest(
            recipe=self.recipe,
            step=state.step,
            rate_factor=state.rate_factor,
            trained_with=tuple(state.trained_with),
            files=entries,
        )
        (folder / _MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
        sync(folder / _MANIFEST)
        sync(folder)

    def newest(self) -> Checkpoint | None:
        """Return the complete checkpoint of this recipe with the most steps; the log says why others are skipped."""
        for folder in sorted(self.root.glob(f"*/*/{_PREFIX}*"), key=lambda path: path.name, reverse=True):
            if folder in self.unfit:
                continue
            try:
                found = self._read(folder)
            except (OSError, ValueError, SafetensorError) as error:
                self.skip(folder, error)
            else:
                _log.info("continuing from checkpoint %s", folder)
                return found
        return None

    def skip(self, folder: Path, why: Exception) -> None:
        """Leave a checkpoint out from now on, and say so in the log."""
        _log.warning("checkpoint %s is skipped: %s", folder, why)
        self.unfit.add(folder)

    def _read(self, folder: Path) -> Checkpoint:
        manifest = _Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
        if manifest.recipe != self.recipe:
            raise ValueError("its data, base model, seed or settings were different")
        refuse_other_release(manifest.trained_with, self.versions)
        for entry in manifest.files:
            path = folder / entry.path
            if path.stat().st_size != entry.size or file_sha256(path) != entry.sha256:
                raise ValueError(f"{entry.path} differs from the manifest")
        names = [entry.path for entry in manifest.files if entry.path.endswith(".safetensors")]
        tensors = {name.removesuffix(".safetensors"): load_file(folder / name) for name in names}
        curve = [json.loads(line) for line in (folder / CURVE_FILE).read_text(encoding="utf-8").splitlines()]
        if [point["step"] for point in curve] != list(range(1, manifest.step + 1)):
            raise ValueError(f"its curve does not have the {manifest.step} steps of the manifest")
        return Checkpoint(manifest.step, tensors, curve, manifest.rate_factor, manifest.trained_with, folder)


def write_curve(folder: Path, points: Sequence[CurvePoint]) -> None:
    """Write `curve.jsonl`, one line per step."""
    (folder / CURVE_FILE).write_text("".join(json.dumps(point) + "\n" for point in points), encoding="utf-8")


def _entry(path: Path) -> ManifestEntry:
    sync(path)
    return entry_of(path, path.name)
