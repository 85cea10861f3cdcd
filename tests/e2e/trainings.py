"""Jobs that only prepare, train and register, and the checkpoints that they leave."""

from pathlib import Path
from typing import Any

from tests.e2e.system import System

PIPELINE = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
]

REGISTER = {"name": "register", "kind": "register", "inputs": {"adapter": "train.adapter"}}


def training(steps: int) -> dict[str, Any]:
    optimiser = {"steps": steps, "batch_size": 8, "learning_rate": 0.003, "schedule": "constant"}
    return {"optimiser": optimiser, "max_length": 160, "precision": "fp32", "checkpoint_steps": 20}


def checkpoints(system: System, job_id: str, attempt: int = 1) -> set[Path]:
    return set((system.home / "checkpoints" / job_id / "train").glob(f"{attempt}/*/step-*/manifest.json"))
