"""`import` stores what was made elsewhere if every later step could use it, and refuses the rest with the remedy."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef, Manifest
from schemas.jobs import StepResult
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import ImportSettings, TrainSettings
from services.chassis.executor.child import UserFault
from services.chassis.storage.artifacts.errors import MANIFEST
from services.trainer.importing.copying import copied
from services.trainer.modelling.base_files import BaseFault
from services.trainer.steps.import_model import import_model
from services.trainer.steps.train import train
from tests.allowed import IN_TESTS
from tests.base_models import configured, dressed, prepare_job, random_model
from tests.trainer import context_of

CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Path) -> ArtifactRef:
    """Return the adapter of a training of one step."""
    home = tmp_path_factory.mktemp("trained")
    optimiser = OptimiserSettings(steps=1, batch_size=2)
    training = TrainingSettings(precision="fp32", max_length=128, optimiser=optimiser)
    data = prepare_job(home, base).outputs["dataset"]
    return train(context_of(home, TrainSettings(base_model=str(base), training=training), {"dataset": data})).outputs[
        "adapter"
    ]


def imported(home: Path, source: Path, base: Path | None = None, **inputs: ArtifactRef) -> StepResult:
    return import_model(context_of(home, ImportSettings(base_model=str(base or source), source=str(source)), inputs))


def files(ref: ArtifactRef) -> set[str]:
    manifest = Manifest.model_validate_json((Path(ref.uri) / MANIFEST).read_bytes())
    return {entry.path for entry in manifest.files}


def exported(adapter: ArtifactRef, folder: Path) -> Path:
    """Return a copy of the adapter as it is given away: with a card, and with the manifest of the store that it comes from."""
    shutil.copytree(adapter.uri, folder)
    (folder / "README.md").write_text(CARD)
    return folder


def test_an_adapter_that_was_given_away_comes_back_with_the_same_digest(
    tmp_path: Path, base: Path, adapter: ArtifactRef
) -> None:
    result = imported(tmp_path, exported(adapter, tmp_path / "given"), base)
    assert result.outputs["adapter"].sha256 == adapter.sha256
    facts = result.facts
    assert (facts["licence"], facts["files_left_out"]) == ("apache-2.0", "'README.md', 'manifest.json'")
    assert facts["imported_from"] == str(tmp_path / "given")
    recorded = json.loads((tmp_path / "given" / "training.json").read_text())
    assert facts["base_model_sha256"] == recorded["base_model_sha256"]


def test_a_whole_model_is_its_own_base_and_only_what_loading_needs_is_taken(tmp_path: Path, base: Path) -> None:
    source = tmp_path / "model"
    shutil.copytree(base, source)
    for name, text in {
        "README.md": CARD,
        "pytorch_model.bin": "pickle",
        "run.py": "code",
        ".hidden": "",
        "a\x1bb.json": "{}",
    }.items():
        (source / name).write_text(text)
    (source / "onnx").mkdir()
    result = imported(tmp_path, source)
    assert files(result.outputs["model"]) == {file.name for file in base.iterdir()}
    assert result.facts["files_left_out"] == "'README.md', 'a\\x1bb.json', 'onnx/', 'pytorch_model.bin', 'run.py'"
    assert "base_model_sha256" not in result.facts, "the registry takes the model's own"


def test_an_adapter_without_a_tokenizer_is_served_with_that_of_its_base(
    tmp_path: Path, base: Path, adapter: ArtifactRef
) -> None:
    source = tmp_path / "bare"
    source.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(Path(adapter.uri) / name, source / name)
    made = files(imported(tmp_path, source, base).outputs["adapter"])
    assert {"tokenizer.json", "chat_template.jinja"} <= made


def test_an_adapter_of_a_registered_model_comes_with_that_model(tmp_path: Path, base: Path, adapter: ArtifactRef) -> None:
    model = imported(tmp_path, base).outputs["model"]
    source = exported(adapter, tmp_path / "given")
    configured(source, "training.json", base_model_sha256=model.sha256)
    result = imported(tmp_path, source, Path("router@1.0.0"), model=model)
    assert result.outputs["model"] == model
    assert set(result.outputs) == {"adapter", "model"}


def _written(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def _without(*names: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")


def _linked(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/passwd")


def _large(folder: Path) -> None:
    with (folder / "vocab.json").open("wb") as file:
        file.truncate(600 * 1024 * 1024)  # sparse: it takes no room


def _half(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_pickled, "pickle"),
        (_linked, "lead out of the folders"),
        (lambda folder: os.mkfifo(folder / "vocab.json"), "pipes or devices"),
        (_large, "more than the"),
        (_half, "not whole"),
        (_without("config.json"), "neither config.json"),
        (_written("config.json", "[" * 100_000), "cannot be read"),
        (_written("config.json", "{" + '"a":{' * 50_000), "cannot be read"),
        (lambda folder: configured(folder, auto_map={"AutoModel": "x.Y"}), "auto_map"),
        (lambda folder: configured(folder, hidden_size=64), "shape"),
        (_written("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "git-lfs"),
        (_written("model.safetensors.index.json", '{"weight_map": {"a": "../../x.safetensors"}}'), "two different checkpoints"),
        (_written("chat_template.jinja", "{{ cycler.__init__ }}{% for"), "template"),
    ],
)  # fmt: skip
def test_a_model_that_no_job_could_use_is_refused_in_words(
    tmp_path: Path, base: Path, change: Callable[[Path], object], said: str
) -> None:
    source = tmp_path / "model"
    shutil.copytree(base, source)
    change(source)
    with pytest.raises(UserFault, match=said) as caught:
        imported(tmp_path, source)
    (reason,) = caught.value.reasons
    assert reason.field == "import_from"
    assert reason.remedy
    assert not (tmp_path / "artifacts" / "sha256").exists(), "nothing of it is stored"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: configured(folder, "training.json", base_model_sha256="0" * 64), "trained on a base model with other files"),
        (lambda folder: configured(folder, "adapter_config.json", r=7), "other shapes"),
        (lambda folder: configured(folder, "adapter_config.json", megatron_config={"a": 1}), "options that are not read"),
        (lambda folder: configured(folder, "adapter_config.json", task_type="SEQ_CLS"), "scores answers"),
        (_written("training.json", "[" * 100_000), "cannot be read"),
        (_written("config.json", "{}"), None),
        (_written("model.safetensors", b""), "an adapter .* and a whole model"),
        (_without("adapter_model.safetensors"), "no adapter_model.safetensors"),
    ],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused_in_words(
    tmp_path: Path, base: Path, adapter: ArtifactRef, change: Callable[[Path], object], said: str | None
) -> None:
    source = exported(adapter, tmp_path / "given")
    change(source)
    if said is None:
        assert imported(tmp_path, source, base).outputs
        return
    with pytest.raises(UserFault, match=said) as caught:
        imported(tmp_path, source, base)
    assert caught.value.reasons[0].field == "import_from"


def test_an_adapter_for_another_base_is_refused(tmp_path: Path, base: Path, adapter: ArtifactRef) -> None:
    other = dressed(tmp_path / "other", random_model("Qwen2", hidden_size=64))
    source = exported(adapter, tmp_path / "given")
    with pytest.raises(UserFault, match="other files, as their digests tell"):
        imported(tmp_path, source, other)
    (source / "training.json").unlink()
    with pytest.raises(UserFault, match="does not fit the base model"):
        imported(tmp_path, source, other)
    with pytest.raises(UserFault, match="--base"):
        imported(tmp_path, source)
    with pytest.raises(UserFault, match="its own base model"):
        imported(tmp_path, base, other)


def test_an_adapter_that_names_another_repository_is_refused_before_anything_is_read(
    tmp_path: Path, adapter: ArtifactRef
) -> None:
    from services.trainer.importing.checking import _refuse_other_name

    source = configured(exported(adapter, tmp_path / "given"), "adapter_config.json", base_model_name_or_path="owner/one")
    _refuse_other_name(source, "Owner/One@main")
    with pytest.raises(BaseFault, match="owner/one"):
        _refuse_other_name(source, "owner/two")


@pytest.mark.parametrize("change", [_written("b.json", "other"), _without("b.json")])
def test_files_that_change_while_they_are_copied_are_refused(tmp_path: Path, change: Callable[[Path], object]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
    for name in ("a.json", "b.json"):
        (source / name).write_text("{}")

    def watch(done: int, _of: int) -> None:
        if done == len("{}"):
            change(source)

    with pytest.raises(BaseFault, match=r"b\.json changed"):
        copied(source, ("a.json", "b.json"), target, tmp_path / "cache", IN_TESTS, watch)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
    for name in ("a.json", "b.json"):
        (source / name).write_text("{}")

    def watch(done: int, _of: int) -> None:
        if done == len("{}"):
            (source / "b.json").unlink()
            os.mkfifo(source / "b.json")

    with pytest.raises(BaseFault, match="no regular file"):
        copied(source, ("a.json", "b.json"), target, tmp_path / "cache", IN_TESTS, watch)


def test_an_import_that_is_asked_to_stop_stores_nothing(tmp_path: Path, base: Path) -> None:
    from services.chassis.executor.child import Stopping

    context: Any = context_of(tmp_path, ImportSettings(base_model=str(base), source=str(base)))
    context.stop()
    with pytest.raises(Stopping):
        import_model(context)
    assert not (tmp_path / "artifacts" / "sha256").exists()
