"""A version is given away with the card that follows from the log; others read the OCI artifact, and every digest in it is true."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from olot.modelpack import Model
from olot.oci.oci_image_index import OCIImageIndex
from olot.oci.oci_image_manifest import OCIImageManifest
from oras.layout import Layout

from schemas.artifacts import ArtifactRef
from schemas.envelope import Event
from schemas.jobs import StepResult
from schemas.models import Imported, ModelRegistered
from services.audit.packaging.contents import Contents, contents_of
from services.audit.packaging.hugging_face import write_folder
from services.audit.packaging.model_pack import write_layout
from services.chassis.storage.artifacts.store import ArtifactStore
from tests.audit import changed
from tests.bundle import MODEL, VERSION, artifact_in, collected, events_of, raw_records

Changing = Callable[[ModelRegistered], dict[str, Any]]


def contents(home: Path, change: Changing = lambda _made: {}) -> Contents:
    """Return what is given away of a version whose lineage is as `change` says."""
    store = home / "store"

    def altered(event: Event) -> Event:
        if not isinstance(event.data, ModelRegistered):
            return event
        lineage = event.data.lineage.model_copy(update=change(event.data))
        return changed(event, event.data.model_copy(update={"lineage": lineage}))

    made = collected(raw_records([altered(event) for event in events_of(artifact_in(store))]))
    return contents_of(made, lambda ref: ArtifactStore(str(store)).fetch(ref, home / "cache"))


def stored(home: Path, **files: str) -> ArtifactRef:
    folder = home / "more"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return ArtifactStore(str(home / "store")).put(folder)


def test_a_folder_has_the_files_as_they_were_registered_and_the_card(tmp_path: Path) -> None:
    write_folder(contents(tmp_path), tmp_path / "given")
    assert {file.name for file in (tmp_path / "given").iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "README.md", "technical-file.md"
    }  # fmt: skip
    assert (tmp_path / "given" / "adapter_config.json").read_bytes() == (
        tmp_path / "adapter" / "adapter_config.json"
    ).read_bytes()
    card = (tmp_path / "given" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "peft"
    assert f"\n# {MODEL}" in card


def test_a_gguf_file_that_the_job_made_of_the_version_comes_with_it(tmp_path: Path) -> None:
    def compressed(made: ModelRegistered) -> dict[str, Any]:
        gguf = StepResult(
            inputs={"adapter": made.artifact.sha256}, facts={"compression": "gguf"},
            outputs={"model": stored(tmp_path, model__gguf="GGUF", config__json="{}")},
        )  # fmt: skip
        other = gguf.model_copy(update={"inputs": {"adapter": "0" * 64}, "outputs": {}})
        return {"results": {**made.lineage.results, "other": other, "small": gguf}}

    write_folder(contents(tmp_path, compressed), tmp_path / "given")
    assert (tmp_path / "given" / "model.gguf").read_text() == "GGUF"
    assert not (tmp_path / "given" / "config.json").exists(), "only that file of the other model"


def test_an_oci_artifact_is_read_by_others_and_every_digest_in_it_is_that_of_its_blob(tmp_path: Path) -> None:
    given = tmp_path / "given"
    digest = write_layout(contents(tmp_path), given)
    blobs = Layout(str(given)).get_ordered_blobs(VERSION)
    assert digest.removeprefix("sha256:") in str(blobs)
    index = OCIImageIndex.model_validate_json((given / "index.json").read_bytes())
    assert [manifest.digest for manifest in index.manifests or ()] == [digest]
    found = {blob.name: blob.read_bytes() for blob in (given / "blobs" / "sha256").iterdir()}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in found.items())
    manifest = OCIImageManifest.model_validate_json(found[digest.removeprefix("sha256:")])
    named = {layer.annotations["org.cncf.model.filepath"]: layer for layer in manifest.layers}
    assert list(named) == ["adapter_model.safetensors", "adapter_config.json", "README.md", "technical-file.md"]
    assert all(len(found[layer.digest.removeprefix("sha256:")]) == layer.size for layer in named.values())
    assert {layer.mediaType.rpartition("model.")[2] for layer in named.values()} == {
        "weight.v1.raw", "weight.config.v1.raw", "doc.v1.raw"
    }  # fmt: skip
    config = Model.model_validate_json(found[manifest.config.digest.removeprefix("sha256:")])
    assert (config.descriptor.name, config.descriptor.version, config.config.format) == (MODEL, VERSION, "safetensors")
    assert config.modelfs.diffIds == [layer.digest for layer in named.values()]
    assert set(found) == {d.digest.removeprefix("sha256:") for d in (manifest.config, *manifest.layers)} | {digest[7:]}


def test_equal_versions_give_equal_artifacts_and_an_import_keeps_its_licence(tmp_path: Path) -> None:
    licensed: Changing = lambda _made: {"imported": Imported(source="owner/model", licence="mit")}  # noqa: E731
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    made = contents(tmp_path / "one", licensed)
    digests = {write_layout(made, tmp_path / name / "given") for name in ("one", "two")}
    assert len(digests) == 1
    found = [
        json.loads(blob.read_bytes())
        for blob in (tmp_path / "one/given/blobs/sha256").iterdir()
        if blob.read_bytes()[:2] == b'{"'
    ]
    assert [one["descriptor"]["licenses"] for one in found if "descriptor" in one] == [["mit"]]


def test_a_reward_model_is_not_said_to_write_text(tmp_path: Path) -> None:
    made = contents(tmp_path)
    write_layout(made._replace(version=made.version.model_copy(update={"purpose": "scores"})), tmp_path / "given")
    text = "".join(blob.read_text(errors="replace") for blob in (tmp_path / "given/blobs/sha256").iterdir())
    assert "capabilities" not in text
