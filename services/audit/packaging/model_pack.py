"""Writes a version as an OCI artifact in ModelPack layout: an OCI image layout whose layers are the files of the version, as they are.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md, https://github.com/modelpack/model-spec
Equal versions give equal bytes: layers are ordered, and the only time is that of the registration.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from services.audit.bundle.cited import canonical
from services.audit.packaging.contents import GGUF, Contents
from services.chassis.storage.artifacts.files import copy_file, write_file

_IMAGE = "application/vnd.oci.image"
_MODEL = "application/vnd.cncf.model"
_WEIGHTS, _SETTINGS, _DOCUMENTS = f"{_MODEL}.weight.v1.raw", f"{_MODEL}.weight.config.v1.raw", f"{_MODEL}.doc.v1.raw"
_ORDER = (_WEIGHTS, _SETTINGS, _DOCUMENTS)
_TYPES = {".safetensors": _WEIGHTS, ".gguf": _WEIGHTS, ".md": _DOCUMENTS}
_FILE = "org.cncf.model.filepath"
_TITLE, _VERSION, _NAMED = (f"org.opencontainers.image.{name}" for name in ("title", "version", "ref.name"))

Descriptor = dict[str, Any]


def write_layout(contents: Contents, folder: Path) -> str:
    """Write the layout below `folder` and return the digest of its manifest, by which registries know the artifact."""
    blobs = folder / "blobs" / "sha256"
    layers = [_copied(blobs, name, file) for name, file in contents.files.items()]
    layers += [_layer(_written(blobs, content), name) for name, content in contents.documents.items()]
    layers.sort(key=lambda layer: (_ORDER.index(layer["mediaType"]), layer["annotations"][_FILE]))
    config = {"mediaType": f"{_MODEL}.config.v1+json", **_written(blobs, canonical(_config(contents, layers)))}
    made = contents.version
    manifest = {
        "schemaVersion": 2, "mediaType": f"{_IMAGE}.manifest.v1+json", "artifactType": f"{_MODEL}.manifest.v1+json",
        "config": config, "layers": layers, "annotations": {_TITLE: made.model, _VERSION: made.version},
    }  # fmt: skip
    written = _written(blobs, canonical(manifest))
    entry = {"mediaType": manifest["mediaType"], "artifactType": manifest["artifactType"], **written}
    index = {
        "schemaVersion": 2, "mediaType": f"{_IMAGE}.index.v1+json",
        "manifests": [{**entry, "annotations": {_NAMED: made.version}}],
    }  # fmt: skip
    write_file(folder / "index.json", canonical(index))
    write_file(folder / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
    return str(written["digest"])


def _copied(blobs: Path, name: str, file: Path) -> Descriptor:
    """Copy a file into its blob; two files of the same content are one."""
    temporary = blobs / f"copied-{hashlib.sha256(name.encode()).hexdigest()}"
    entry = copy_file(file, temporary, name)
    temporary.replace(blobs / entry.sha256)
    return _layer({"digest": f"sha256:{entry.sha256}", "size": entry.size}, name)


def _written(blobs: Path, content: bytes) -> Descriptor:
    digest = hashlib.sha256(content).hexdigest()
    if not (blobs / digest).exists():
        write_file(blobs / digest, content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def _layer(blob: Descriptor, name: str) -> Descriptor:
    kind = _TYPES.get(PurePosixPath(name).suffix, _SETTINGS)
    return {"mediaType": kind, **blob, "annotations": {_FILE: name, _TITLE: name}}


def _config(contents: Contents, layers: list[Descriptor]) -> Mapping[str, Any]:
    """Return the configuration of ModelPack. A layer is stored as it is, so its digest is also that of its content."""
    made = contents.version
    licence = made.lineage.imported and made.lineage.imported.licence
    text = {"inputTypes": ["text"], "outputTypes": ["text"]}
    weights = (
        "gguf"
        if GGUF in contents.files and not any(name.endswith(".safetensors") for name in contents.files)
        else "safetensors"
    )
    return {
        "descriptor": {
            "name": made.model, "version": made.version, "createdAt": contents.registered_at.isoformat(),
            **({"licenses": [licence]} if licence else {}),
        },
        "config": {"format": weights, **({} if made.purpose == "scores" else {"capabilities": text})},
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
    }  # fmt: skip
