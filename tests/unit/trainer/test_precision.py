"""A step computes where and in what it was told to, or says why it cannot."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from schemas.recipes.sft import TrainingSettings
from services.chassis.executor.child import UserFault
from services.language_models.precision import DeviceGone, device
from services.trainer.steps import abilities


def test_a_gpu_that_is_gone_is_not_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(DeviceGone, match=r"the GPU 2, and PyTorch finds none: see what nvidia-smi says"):
        device()


@pytest.mark.parametrize("given", ["", " ", "-1"])
def test_a_process_that_is_given_no_gpu_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert device().type == "cpu"


def test_bf16_is_refused_on_a_gpu_that_does_not_compute_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """tatsu-lab/stanford_alpaca#133: a V100."""
    monkeypatch.setattr(abilities, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    model: Any = SimpleNamespace()
    with pytest.raises(UserFault, match=r"training\.precision: the GPU .* bf16"):
        abilities.check_abilities(model, TrainingSettings(precision="bf16"), "training")
    abilities.check_abilities(model, TrainingSettings(precision="fp32"), "training")
