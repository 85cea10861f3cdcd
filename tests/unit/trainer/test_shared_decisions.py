"""Processes that share weights decide together what none of them sees alone."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from services.trainer.engine.checkpoints import Checkpoints
from services.trainer.engine.supervision import Diverged, Run, Supervision
from services.trainer.engine.trained import TrainedState, ZeroGradient

LOGS = {"loss": 1.0, "grad_norm": 1.0, "learning_rate": 1e-3}


def state_with(gradient: float) -> TrainedState:
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.full_like(layer.weight, gradient)
    return TrainedState(layer, torch.optim.AdamW(layer.parameters()))


class OfTwo:
    """What this process, the first of two, hears from the other: that a flag is set there, or not."""

    rank, first = 0, True

    def __init__(self, set_there: bool) -> None:
        self.any: Callable[[bool], bool] = lambda flag: flag or set_there


def supervision(tmp_path: Path, ranks: Any) -> Supervision:
    context: Any = SimpleNamespace(progress=lambda *_, **__: None, measured=lambda *_: None, stopping=False)
    method: Any = SimpleNamespace(figures={}, made=lambda _: 0)
    run = Run(4, 0, 2, Checkpoints(tmp_path / "all", tmp_path / "all" / "1" / "lease", "recipe"), lambda _: 1)
    return Supervision(context, run, state_with(1.0), method, dict, ranks)


def steps(watching: Supervision, count: int) -> None:
    for _ in range(count):
        watching.on_log(None, SimpleNamespace(log_history=[]), None, LOGS)


def test_weights_that_broke_in_another_process_end_the_training_here_and_are_not_saved(tmp_path: Path) -> None:
    watching = supervision(tmp_path, OfTwo(set_there=True))
    with pytest.raises(Diverged, match=r"at step 2 .* its update made weights that are not numbers"):
        steps(watching, 2)
    watching.save_done()
    assert list(tmp_path.rglob("step-*")) == []


def test_weights_that_are_numbers_in_all_processes_are_saved(tmp_path: Path) -> None:
    steps(supervision(tmp_path, OfTwo(set_there=False)), 2)
    assert [path.name for path in tmp_path.rglob("step-*")] == ["step-00000002"]


def test_a_part_without_gradients_is_no_fault_where_another_part_has_them() -> None:
    state_with(0.0).check_gradients(anywhere=lambda _: True)
    with pytest.raises(ZeroGradient):
        state_with(0.0).check_gradients(anywhere=lambda flag: flag)
