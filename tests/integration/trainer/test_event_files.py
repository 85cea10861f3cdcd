"""A training can be watched in TensorBoard while it runs and after it has ended."""

import logging
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context
from services.trainer.child import train
from services.trainer.steps.event_files import event_files
from tests.trainer import Reports, task_of

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")


def context(home: Path, base: Path, dataset: ArtifactRef, folder: Path | None) -> Context:
    optimiser = OptimiserSettings(steps=4, batch_size=2, learning_rate=1e-3)
    training = TrainingSettings(
        lora=LoraSettings(rank=2), precision="fp32", optimiser=optimiser, max_length=64, checkpoint_steps=2
    )
    task = task_of(home, TrainSettings(base_model=str(base), training=training), {"dataset": dataset})
    return Context(task.model_copy(update={"event_files": folder}), Reports())


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the files as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Any = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_every_step_of_a_training_is_in_its_event_files(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    folder = tmp_path / "tensorboard"
    running = context(tmp_path, base, dataset, folder)
    running.task = running.task.model_copy(update={"measurements": True})
    result = train(running)
    found = scalars(folder)
    assert {"loss", "learning_rate", "gradient_norm", "tokens_per_second", "validation_loss"} <= set(found)
    told = running._channel.measured  # type: ignore[attr-defined]
    assert [step for step, _ in found["loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["validation_loss"]] == [2, 4]
    assert {step: values["loss"] for step, values in told.items()} == pytest.approx(dict(found["loss"])), (
        "as the worker is told"
    )
    assert found["validation_loss"][-1][1] == pytest.approx(result.metrics["validation_loss"])


def test_a_run_that_resumes_hides_what_was_written_beyond_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard"
    task = task_of(tmp_path, TrainSettings(base_model="x", training=TrainingSettings()))
    for first, loss in ((1, 1.0), (3, 2.0)):  # the second run resumes behind step 2
        running = Context(task.model_copy(update={"event_files": folder}), Reports())
        with event_files(running):
            for step in range(first, 5):
                running.measured(step, {"step": step, "loss": loss})
    assert scalars(folder)["loss"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_without_a_folder_nothing_is_written(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    train(context(tmp_path, base, dataset, None))
    assert not list(tmp_path.rglob("events.out.tfevents*"))


def test_files_that_cannot_be_written_do_not_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    task = task_of(tmp_path, TrainSettings(base_model="x", training=TrainingSettings()))
    running = Context(task.model_copy(update={"event_files": tmp_path / "taken"}), Reports())
    with caplog.at_level(logging.ERROR), event_files(running):
        running.measured(1, {"loss": 1.0})
        running.measured(2, {"loss": 1.0})
    assert len(caplog.records) == 1
    assert "the training goes on without them" in caplog.text
