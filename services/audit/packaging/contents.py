"""Finds what is given away of a version: its files as they were registered, the documents that follow from its records, and a GGUF file."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from schemas.artifacts import Manifest
from schemas.models import ModelRegistered
from schemas.results import COMPRESSION, MODEL
from services.audit.bundle import technical_file
from services.audit.bundle.collecting import Collected
from services.audit.bundle.documents import derive
from services.audit.bundle.faults import BundleRefused
from services.audit.bundle.model_card import CARD
from services.audit.bundle.writing import Fetch
from services.chassis.storage.artifacts.errors import MANIFEST

GGUF = "model.gguf"
"""Name of the GGUF file of a compressed model."""


class Contents(NamedTuple):
    """The files of a version, by their path."""

    version: ModelRegistered
    registered_at: datetime
    files: Mapping[str, Path]
    """Files as they were registered, and a GGUF file that the same job made of them."""
    documents: Mapping[str, bytes]
    """The model card and the technical file that it refers to."""

    @property
    def size(self) -> int:
        """Bytes of everything."""
        return sum(file.stat().st_size for file in self.files.values()) + sum(map(len, self.documents.values()))


def contents_of(collected: Collected, fetch: Fetch) -> Contents:
    """Return what is given away of the version. Raises BundleRefused and the errors of `fetch`."""
    collected.require_files("only its evidence can be written: `neuroweaver evidence write --without-artifact`")
    derived = derive(collected.view, collected.records)
    registered = derived.sources.registered
    try:
        made = ModelRegistered.model_validate(registered.value)
        at = datetime.fromisoformat(str(registered.header("ce_time").value))
    except (ValidationError, ValueError) as error:
        raise BundleRefused(f"the registration of the version cannot be read: {type(error).__name__}") from None
    files = _files(fetch(made.artifact))
    gguf = next(
        (result for result in made.lineage.results.values() if _is_gguf_of(result.facts, result.inputs, made)), None
    )
    if gguf is not None and GGUF not in files:
        files |= {name: file for name, file in _files(fetch(gguf.outputs[MODEL])).items() if name == GGUF}
    documents = {name: derived.files[name] for name in (CARD, technical_file.TEXT)}
    return Contents(made, at, {name: file for name, file in files.items() if name not in documents}, documents)


def _is_gguf_of(facts: Mapping[str, str], inputs: Mapping[str, str], made: ModelRegistered) -> bool:
    return facts.get(COMPRESSION) == "gguf" and made.artifact.sha256 in inputs.values()


def _files(folder: Path) -> dict[str, Path]:
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    return {entry.path: folder / entry.path for entry in manifest.files}
