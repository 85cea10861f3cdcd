"""Models are imported from a bucket and from the hub as from a folder, and whatever goes wrong on the way ends in words or is done again whole."""

import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.steps import ImportSettings
from services.chassis.executor.child import Context, UserFault
from services.chassis.executor.inputs import corrupt_input
from services.chassis.executor.messages import ChildTask
from services.chassis.storage.artifacts.errors import ArtifactCorrupt
from services.trainer.steps.import_model import import_model
from tests.compression import made_adapter
from tests.forked import FORKS
from tests.integration.artifacts.test_remote_references import Hub
from tests.trainer import Reports, context_of


def imported(home: Path, source: str, base: str | None = None, **inputs: ArtifactRef) -> StepResult:
    return import_model(context_of(home, ImportSettings(base_model=base or source, source=source), inputs))


@pytest.fixture
def bucket(s3: str, base: Path) -> str:
    """Return the URI of the base model's folder in a bucket."""
    uri = f"{s3}/{uuid4().hex}/model"
    fs, root = fsspec.url_to_fs(uri)
    for file in base.iterdir():
        fs.pipe_file(f"{root}/{file.name}", file.read_bytes())
    return uri


def test_a_model_in_a_bucket_is_the_one_that_it_is_in_a_folder(tmp_path: Path, base: Path, bucket: str) -> None:
    made = imported(tmp_path, bucket)
    assert made.outputs["model"].sha256 == imported(tmp_path, str(base)).outputs["model"].sha256
    assert made.facts["imported_from"] == bucket


def test_a_model_whose_upload_ended_half_way_or_that_is_not_there_is_refused_in_words(
    tmp_path: Path, base: Path, bucket: str
) -> None:
    fs, root = fsspec.url_to_fs(bucket)
    weights = (base / "model.safetensors").read_bytes()
    fs.pipe_file(f"{root}/model.safetensors", weights[: len(weights) // 2])
    with pytest.raises(UserFault, match="not whole") as caught:
        imported(tmp_path, bucket)
    assert caught.value.reasons[0].field == "import_from"
    with pytest.raises(UserFault, match=r"it contains no files .*; check bucket and path"):
        imported(tmp_path, f"{bucket}-missing")
    assert not (tmp_path / "artifacts" / "sha256").exists(), "nothing of it is stored"
    fs.pipe_file(f"{root}/model.safetensors", weights)
    assert imported(tmp_path, bucket).outputs["model"].size > len(weights), "the next import reads the whole upload"


@pytest.fixture
def hub(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """Return what a hub has whose only model is the base model, with a pickle and code beside it."""
    from huggingface_hub import constants

    class OurHub(Hub):
        files = {file.name: file.read_bytes() for file in base.iterdir()} | {"run.py": b"code", "old.bin": b"pickle"}

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(OurHub))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield OurHub
    server.shutdown()
    server.server_close()


def test_a_model_of_the_hub_is_the_one_that_it_is_in_a_folder_and_its_commit_is_recorded(
    tmp_path: Path, base: Path, hub: type[Hub]
) -> None:
    made = imported(tmp_path, "org/tiny")
    assert made.outputs["model"].sha256 == imported(tmp_path, str(base)).outputs["model"].sha256
    assert (made.facts["imported_from"], made.facts["imported_revision"]) == ("org/tiny", hub.commit)


def test_a_model_that_the_hub_does_not_have_or_has_only_in_part_is_refused_in_words(tmp_path: Path, hub: type[Hub]) -> None:
    with pytest.raises(UserFault, match="no model org/missing on the Hugging Face hub") as caught:
        imported(tmp_path, "org/missing")
    assert caught.value.reasons[0].field == "import_from"
    weights = hub.files["model.safetensors"]
    hub.files["model.safetensors"] = weights[: len(weights) // 2]
    with pytest.raises(UserFault, match="not whole"):
        imported(tmp_path, "org/tiny")
    assert not (tmp_path / "artifacts" / "sha256").exists()


def test_an_adapter_whose_base_model_was_altered_in_the_store_is_refused_with_both_digests(
    tmp_path: Path, base: Path
) -> None:
    model = imported(tmp_path, str(base)).outputs["model"]
    source = tmp_path / "given"
    shutil.copytree(made_adapter(tmp_path, base).uri, source)
    with (Path(model.uri) / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(ArtifactCorrupt) as altered:
        imported(tmp_path, str(source), "router@1.0.0", model=model)
    fault = corrupt_input(altered.value, {"model": model})
    assert fault is not None
    assert (fault.cause, fault.reasons[0].field) == ("user", "inputs.model")
    assert "model.safetensors: expected sha256" in fault.message


def dying(task: str, moment: str) -> None:
    """Run the step, and kill this process while it copies, or before what it stored is in place."""
    from services.chassis.storage.artifacts import store

    context = Context(ChildTask.model_validate_json(task), Reports())

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "copying":
        context.progress = die  # type: ignore[method-assign]
    else:
        store.move = die  # type: ignore[attr-defined]
    import_model(context)


@pytest.mark.parametrize("moment", ["copying", "storing"])
def test_an_import_that_is_killed_leaves_no_artifact_and_the_next_attempt_makes_the_whole_one(
    tmp_path: Path, base: Path, moment: str
) -> None:
    settings = ImportSettings(base_model=str(base), source=str(base))
    killed = FORKS.Process(target=dying, args=(context_of(tmp_path, settings).task.model_dump_json(), moment))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not (tmp_path / "artifacts" / "sha256").exists()
    made = import_model(context_of(tmp_path, settings)).outputs["model"]
    assert made.sha256 == imported(tmp_path / "other", str(base)).outputs["model"].sha256
