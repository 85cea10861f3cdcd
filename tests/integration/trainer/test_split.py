"""A training split over two processes makes what one process makes, and whatever ends it, it goes on from its checkpoint."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from schemas.artifacts import ArtifactRef
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import UserFault
from services.chassis.executor.runner import Completed, Failed, Stopped
from services.trainer.engine.ranks import refuse_unsplittable
from services.trainer.engine.schedule import micro_batch_size
from services.trainer.settings import TrainerSettings
from services.trainer.steps.train import train
from tests.integration.trainer.conftest import dataset_in
from tests.integration.trainer.test_dpo import pair
from tests.integration.trainer.test_dpo import settings as dpo_settings
from tests.integration.trainer.test_kto import answer
from tests.integration.trainer.test_kto import settings as kto_settings
from tests.integration.trainer.test_reward import settings as reward_settings
from tests.split import Split, Trainings, trained
from tests.trainer import context_of, lines_of, put_lines, weights_of

TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a machine with two GPUs")


DROPOUT = "dropout"
OPTIMISER = OptimiserSettings(learning_rate=3e-2, steps=6, batch_size=8, micro_batch_size=2)


def settings(base: Path, **changes: Any) -> TrainSettings:
    lora = {"dropout": 0.1}
    training = {
        "precision": "fp32",
        "max_length": 96,
        "checkpoint_steps": 2,
        "optimiser": OPTIMISER,
        "lora": lora,
        **changes,
    }
    return TrainSettings(base_model=str(base), training=TrainingSettings.model_validate(training))


def curve(adapter: ArtifactRef) -> list[float]:
    return [point["loss"] for point in lines_of(adapter, "curve.jsonl")]


def tensors(made: ArtifactRef) -> dict[str, torch.Tensor]:
    [path] = Path(made.uri).glob("*model.safetensors")
    return load_file(path)


def weights(adapter: ArtifactRef) -> bytes:
    return (Path(adapter.uri) / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="module")
def asked(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """Return a training with dropout, and one of every method whose loss does not depend on how it is split, by name."""
    home = tmp_path_factory.mktemp("asked")
    dataset = dataset_in(home)
    pairs = put_lines(home, preferences=[pair(number, rejected="No" * (1 + number % 5)) for number in range(10)])
    judged = put_lines(home, judged=[answer(number, number % 3 > 0) for number in range(12)])
    learnt = settings(
        base, lora={"dropout": 0.0}, optimiser=OPTIMISER.model_copy(update={"activation_checkpointing": True})
    )
    losses = [{"kind": "sigmoid"}, {"kind": "sft", "weight": 0.5}]
    return {
        DROPOUT: (settings(base), {"dataset": dataset}),
        "sft": (learnt, {"dataset": dataset}),
        "dpo": (dpo_settings(base, losses=losses), {"preferences": pairs}),
        "kto": (kto_settings(base), {"preferences": judged}),
        "reward": (reward_settings(base), {"preferences": pairs}),
        "full": (settings(base, lora={}, adaptation="full", packing=True), {"dataset": dataset}),
    }


@pytest.fixture(scope="module")
def made(asked: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ArtifactRef]:
    """Return what each of them makes over two processes that nothing interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return trained(tmp_path_factory.mktemp("made"), asked, 2)


@pytest.mark.usefixtures("_no_gpu")
def test_a_training_over_two_processes_that_is_killed_and_stopped_makes_what_an_uninterrupted_one_makes(
    tmp_path: Path, base: Path, dataset: ArtifactRef, made: Mapping[str, ArtifactRef]
) -> None:
    def split(attempt: int) -> Split:
        return Split(tmp_path, settings(base), {"dataset": dataset}, 2, attempt)

    def kill_the_second(run: Split) -> None:
        [second] = run.processes()
        second.send_signal(signal.SIGKILL)

    killed = split(1).run(2, kill_the_second)
    assert isinstance(killed, Failed)
    assert killed.fault.cause == "infrastructure"
    assert killed.fault.message == "process 2 of 2: the process was killed by SIGKILL and left no result"
    assert isinstance(split(2).run(4, Split.stop), Stopped)
    resumed = split(3).run()
    assert isinstance(resumed, Completed), resumed
    assert weights(resumed.result.outputs["adapter"]) == weights(made[DROPOUT])
    facts = resumed.result.facts
    assert (facts["device"], facts["processes"], facts["strategy"]) == ("cpu", "2", "ddp")


@pytest.mark.usefixtures("_no_gpu")
def test_every_method_over_two_processes_makes_what_one_process_makes(
    tmp_path: Path, asked: Trainings, made: Mapping[str, ArtifactRef]
) -> None:
    for name, (step, inputs) in asked.items():
        if name == DROPOUT:
            continue
        mine = weights_of(train(context_of(tmp_path, step, inputs, step=name)))
        assert mine is not None
        assert curve(made[name]) == pytest.approx(curve(mine), rel=1e-4), name
        torch.testing.assert_close(tensors(made[name]), tensors(mine), rtol=1e-3, atol=1e-4)


@TWO_GPUS
def test_each_process_has_a_gpu_of_its_own(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    outcome = Split(tmp_path, settings(base), {"dataset": dataset}, 2, 1).run()
    assert isinstance(outcome, Completed), outcome
    facts = outcome.result.facts
    assert (facts["device"], facts["processes"], facts["strategy"]) == ("cuda", "2", "ddp")


def test_what_cannot_be_split_is_refused_in_words(base: Path) -> None:
    step = settings(base)
    assert step.training is not None
    refuse_unsplittable(step, step.training, 2)
    with pytest.raises(UserFault) as refused:
        refuse_unsplittable(step, step.training, 3)
    [reason] = refused.value.reasons
    assert (reason.field, reason.value) == ("training.optimiser.batch_size", "8")
    assert reason.message == "this trainer splits a training over 3 processes, and 8 is not a multiple of it"
    assert reason.remedy.startswith("set it to 6 or 9, or ")


def test_the_parts_of_a_batch_that_processes_share_are_equal() -> None:
    settings = OptimiserSettings(batch_size=12, micro_batch_size=6)
    assert [micro_batch_size(settings, failures, processes=3) for failures in range(3)] == [4, 2, 1]


@pytest.mark.parametrize(("launcher", "processes"), [("local", 2), ("torchrun", 1)])
def test_launcher_and_number_of_processes_must_agree(launcher: str, processes: int) -> None:
    with pytest.raises(ValueError, match="set the launcher to torchrun for 2 processes or more, to local for one"):
        TrainerSettings.model_validate({"trainer_launcher": launcher, "trainer_processes": processes})
