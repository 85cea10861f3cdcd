"""Refuses a training of all weights whose checkpoints do not fit on the disk, before anything is loaded."""

import shutil
from pathlib import Path

from schemas.reasons import Reason
from schemas.recipes.optimiser import OptimiserSettings
from services.chassis.executor.child import UserFault
from services.trainer.engine.checkpoints import COMPLETE_AT_ONCE
from services.trainer.modelling.architecture import architecture_of
from services.trainer.modelling.memory import state_bytes
from services.trainer.modelling.whole import with_trained_weights

_GB = 2**30


def refuse_full_disk(base: Path, optimiser: OptimiserSettings, checkpoints: Path) -> None:
    """Raise UserFault if the disk has no room for the checkpoints that exist at once, and the model at the end."""
    model = with_trained_weights(architecture_of(base).empty())
    weights = 4 * sum(weight.numel() for weight in model.parameters())
    one = weights + state_bytes(model, optimiser)
    checkpoints.mkdir(parents=True, exist_ok=True)
    kept = sum(file.stat().st_size for file in checkpoints.parent.parent.rglob("*.safetensors"))
    needed, free = COMPLETE_AT_ONCE * one + weights - kept, shutil.disk_usage(checkpoints).free
    if needed > free:
        message = (
            f"a checkpoint of all weights takes {one / _GB:.1f} GiB; {COMPLETE_AT_ONCE} at once and the model need "
            f"{needed / _GB:.1f} GiB, and the disk has {free / _GB:.1f} left"
        )
        remedy = "free the disk, set training.adaptation to lora, or take an optimiser with less state"
        raise UserFault(Reason(field="training.adaptation", value="full", message=message, remedy=remedy))
