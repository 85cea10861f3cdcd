"""Training that was stopped, killed or damaged goes on as if nothing had happened, or starts anew; never from a lie."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context, Stopping
from services.chassis.executor.messages import CHANNEL_VARIABLE, MESSAGE, ChildTask, ProgressMessage, ResultMessage
from services.chassis.storage.digests import entry_of
from services.trainer.steps.train import train
from tests.trainer import Reports, context_of, lines_of, task_of

STEPS = 10


def settings(base: Path, seed: int = 0) -> TrainSettings:
    return TrainSettings(
        base_model=str(base),
        training=TrainingSettings(
            precision="fp32", max_length=96, checkpoint_steps=2, seed=seed, lora=LoraSettings(dropout=0.1),
            optimiser=OptimiserSettings(learning_rate=1e-2, steps=STEPS, batch_size=6),
        ),
    )  # fmt: skip


class StopAfter(Reports):
    """Asks the run to end when it reports so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.context: Context | None = None

    def send(self, message: Any) -> None:
        super().send(message)
        if self.context and isinstance(message, ProgressMessage) and message.progress.done >= self.steps:
            self.context.stop()


def stopped(home: Path, base: Path, data: ArtifactRef, steps: int, seed: int = 0) -> ChildTask:
    """A run that is asked to end after `steps` steps."""
    reports = StopAfter(steps)
    context = Context(task_of(home, settings(base, seed), {"dataset": data}), reports)
    reports.context = context
    context_progress = context.progress

    def every_step(*arguments: Any, **figures: Any) -> None:
        context._sent_at = 0.0  # the limit of one a second would hide steps from this test
        context_progress(*arguments, **figures)

    context.progress = every_step  # type: ignore[method-assign]
    with pytest.raises(Stopping):
        train(context)
    return context.task


def whole(home: Path, base: Path, data: ArtifactRef, seed: int = 0) -> StepResult:
    return train(context_of(home, settings(base, seed), {"dataset": data}))


def losses(result: StepResult) -> list[float]:
    return [point["loss"] for point in lines_of(result.outputs["adapter"], "curve.jsonl")]


def checkpoints(home: Path) -> list[Path]:
    return sorted((home / "checkpoints").glob("job/step/*/*/step-*"), key=lambda path: path.name)


@pytest.fixture
def expected(tmp_path: Path, base: Path, dataset: ArtifactRef) -> StepResult:
    """What a run that is never interrupted makes."""
    return whole(tmp_path / "uninterrupted", base, dataset)


def test_a_stop_keeps_every_step_done_and_the_next_run_makes_the_same_adapter(
    tmp_path: Path, base: Path, dataset: ArtifactRef, expected: StepResult
) -> None:
    task = stopped(tmp_path, base, dataset, steps=5)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004", "step-00000005"]
    assert checkpoints(tmp_path)[0].parent == task.own_checkpoints
    result = whole(tmp_path, base, dataset)
    assert losses(result) == losses(expected)
    assert result.outputs["adapter"].sha256 == expected.outputs["adapter"].sha256


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, base: Path, dataset: ArtifactRef, expected: StepResult, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path, base, dataset, steps=7)
    older, newest = checkpoints(tmp_path)
    weights = newest / "weights.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with caplog.at_level("INFO"):
        result = whole(tmp_path, base, dataset)
    assert f"{newest} is skipped: weights.safetensors differs from the manifest" in caplog.text
    assert f"continuing from checkpoint {older}" in caplog.text
    assert losses(result) == losses(expected)


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "a file is gone"])
def test_an_incomplete_checkpoint_is_none(
    tmp_path: Path, base: Path, dataset: ArtifactRef, expected: StepResult, damage: str
) -> None:
    stopped(tmp_path, base, dataset, steps=3)
    for path in checkpoints(tmp_path):
        manifest = path / "manifest.json"
        match damage:
            case "no manifest":
                manifest.unlink()
            case "half a manifest":
                manifest.write_text(manifest.read_text()[:40])
            case _:
                (path / "exp_avg.safetensors").unlink()
    assert losses(whole(tmp_path, base, dataset)) == losses(expected)


def sealed(folder: Path, **changes: Any) -> None:
    """Write a manifest that agrees with the files of a checkpoint as they are now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [entry_of(path, path.name).model_dump() for path in sorted(folder.iterdir()) if path.name != "manifest.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": files} | changes))


def change(file: Path, tensors: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(tensors(load_file(file)), file)


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


LIES: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "a file that ends early": (
        "SafetensorError|header|buffer",
        lambda folder: os.truncate(folder / "weights.safetensors", 1000),
    ),
    "no files": ("weights", lambda folder: sealed(folder, files=[])),
    "another step": ("its curve does not have the 9 steps", lambda folder: sealed(folder, step=9)),
    "a weight less": (
        "it has other weights than the model",
        lambda folder: change(
            folder / "weights.safetensors", lambda all_: {n: t for n, t in all_.items() if n != _first(all_)}
        ),
    ),
    "a weight more": (
        "it has other weights than the model",
        lambda folder: change(folder / "weights.safetensors", lambda all_: all_ | {"more": torch.zeros(1)}),
    ),
    "another shape": (
        "has the shape [1] there",
        lambda folder: change(folder / "weights.safetensors", lambda all_: all_ | {_first(all_): torch.zeros(1)}),
    ),
    "the optimiser's state of another weight": (
        "it has a state of the optimiser for more",
        lambda folder: change(folder / "exp_avg.safetensors", lambda all_: all_ | {"more": torch.zeros(1)}),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_checkpoint_that_is_whole_but_does_not_fit_is_passed_over_for_the_one_before(
    tmp_path: Path, base: Path, dataset: ArtifactRef, expected: StepResult, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    """As after a library that was changed, or a program that writes something else under the same names."""
    stopped(tmp_path, base, dataset, steps=7)
    older, newest = checkpoints(tmp_path)
    said, tell = LIES[lie]
    tell(newest)
    if lie not in ("no files", "another step"):
        sealed(newest)
    with caplog.at_level("INFO"):
        result = whole(tmp_path, base, dataset)
    assert re.search(f"{re.escape(str(newest))} is skipped: .*({said if '|' in said else re.escape(said)})", caplog.text)
    assert f"continuing from checkpoint {older}" in caplog.text
    assert losses(result) == losses(expected)
    assert result.outputs["adapter"].sha256 == expected.outputs["adapter"].sha256


def test_a_run_goes_on_after_an_upgrade_of_a_library_and_its_record_says_so(
    tmp_path: Path, base: Path, dataset: ArtifactRef, caplog: pytest.LogCaptureFixture
) -> None:
    """Not from the checkpoint of another major release, whose state may have another meaning."""
    stopped(tmp_path, base, dataset, steps=7)
    older, newest = checkpoints(tmp_path)
    made = json.loads((newest / "manifest.json").read_text())["trained_with"]
    assert [stretch["after"] for stretch in made] == [0]
    now = made[0]["versions"]["trl"]
    sealed(newest, trained_with=[{"after": 0, "versions": {**made[0]["versions"], "trl": "0.9.0"}}])
    sealed(older, trained_with=[{"after": 0, "versions": {**made[0]["versions"], "trl": f"{now}rc1"}}])
    result = whole(tmp_path, base, dataset)
    assert f"{newest} is skipped: it was made with trl 0.9.0, and trl {now} is installed" in caplog.text
    said = f"from step 7 on with trl {now} instead of {now}rc1"
    assert result.facts["versions_changed"] == said
    assert said in caplog.text
    record = json.loads((Path(result.outputs["adapter"].uri) / "training.json").read_text())
    assert record["versions_changed"] == said


def test_an_empty_folder_is_no_checkpoint(
    tmp_path: Path, base: Path, dataset: ArtifactRef, expected: StepResult, caplog: pytest.LogCaptureFixture
) -> None:
    own = stopped(tmp_path, base, dataset, steps=3).own_checkpoints
    (own / "step-00000009").mkdir()
    with caplog.at_level("INFO"):
        assert losses(whole(tmp_path, base, dataset)) == losses(expected)
    assert f"continuing from checkpoint {own / 'step-00000003'}" in caplog.text


def test_another_recipe_starts_anew(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    stopped(tmp_path, base, dataset, steps=6, seed=1)
    assert losses(whole(tmp_path, base, dataset)) == losses(whole(tmp_path / "alone", base, dataset))


def test_checkpoints_of_an_earlier_attempt_are_read_and_left_alone(
    tmp_path: Path, base: Path, dataset: ArtifactRef, expected: StepResult
) -> None:
    stopped(tmp_path, base, dataset, steps=6)
    before = {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)}
    result = train(context_of(tmp_path, settings(base), {"dataset": dataset}, attempt=2))
    assert losses(result) == losses(expected)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)}.items()


def test_a_killed_child_is_followed_by_one_that_goes_on(
    tmp_path: Path, base: Path, dataset: ArtifactRef, expected: StepResult
) -> None:
    killed = _Child(task_of(tmp_path, settings(base), {"dataset": dataset}))
    wait_until(lambda: len(checkpoints(tmp_path)) > 1, killed)
    killed.process.send_signal(signal.SIGKILL)
    assert killed.process.wait() == -signal.SIGKILL
    reached = int(checkpoints(tmp_path)[-1].name.removeprefix("step-"))
    assert 0 < reached < STEPS
    second = _Child(task_of(tmp_path, settings(base), {"dataset": dataset}, attempt=2))
    result = second.result()
    assert losses(result) == losses(expected)
    assert result.outputs["adapter"].sha256 == expected.outputs["adapter"].sha256
    assert "continuing from checkpoint" in second.log.read_text()


class _Child:
    """A child as a worker starts it."""

    def __init__(self, task: ChildTask) -> None:
        reading, writing = os.pipe()
        self.log = task.cache.parent / f"{task.lease}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.trainer.child"], stdin=subprocess.PIPE, stdout=log, stderr=log,
                pass_fds=(writing,), env={**os.environ, CHANNEL_VARIABLE: str(writing)},
            )  # fmt: skip
        os.close(writing)
        self.channel = os.fdopen(reading, "rb")
        assert self.process.stdin is not None
        self.process.stdin.write(task.model_dump_json().encode() + b"\n")
        self.process.stdin.flush()

    def result(self) -> StepResult:
        messages = [MESSAGE.validate_json(line) for line in self.channel]
        assert self.process.wait() == 0, self.log.read_text()
        assert isinstance(messages[-1], ResultMessage)
        return messages[-1].result


def wait_until(holds: Any, child: _Child) -> None:
    give_up = time.monotonic() + 300
    while not holds():
        assert child.process.poll() is None, child.log.read_text()
        assert time.monotonic() < give_up, child.log.read_text()
        time.sleep(0.002)


def test_a_manifest_names_every_file_with_size_and_digest(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    stopped(tmp_path, base, dataset, steps=3)
    folder = checkpoints(tmp_path)[-1]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["step"] == 3
    assert {entry["path"] for entry in manifest["files"]} == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert all(entry["size"] == (folder / entry["path"]).stat().st_size for entry in manifest["files"])
