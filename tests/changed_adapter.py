"""An adapter that changes what its base model writes, without a training."""

from pathlib import Path

import torch

from schemas.artifacts import ArtifactRef
from schemas.recipes.lora import LoraSettings
from services.chassis.storage.artifacts.store import ArtifactStore
from services.language_models.chat_format.chat import Chat
from services.trainer.modelling.adapter import new_adapter, write_adapter
from services.trainer.modelling.base import load_base


def changed_adapter(home: Path, base: Path, seed: int = 0) -> ArtifactRef:
    """Store the adapter among the artifacts of `home`; another seed makes another one."""
    adapted = new_adapter(load_base(base, torch.float32, torch.device("cpu")), LoraSettings(rank=2), seed=seed)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    folder = home / f"adapter-{seed}"
    folder.mkdir()
    write_adapter(adapted, folder, str(base))
    Chat(base).save(folder)
    return ArtifactStore(str(home / "artifacts")).put(folder)
