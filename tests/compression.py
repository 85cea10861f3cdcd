"""What tests of compression share: adapters without a training, and the step itself."""

from pathlib import Path
from typing import Any
from uuid import uuid4

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.compression import CompressionSettings
from schemas.recipes.lora import LoraSettings
from schemas.steps import CompressSettings
from services.chassis.storage.artifacts.store import ArtifactStore
from tests.trainer import context_of


def made_adapter(home: Path, base: Path, scale: float = 0.5, quantization: str = "none", **lora: Any) -> ArtifactRef:
    """Store an adapter for `base` whose weights are random, with the base model's tokenizer.

    `quantization` is that of the base model on which it is made.
    """
    import torch

    from services.language_models.chat_format.chat import Chat
    from services.trainer.modelling.adapter import new_adapter, write_adapter
    from services.trainer.modelling.base import load_base

    loaded = load_base(base, torch.float32, torch.device("cpu"), quantization=quantization)
    adapted = new_adapter(loaded, LoraSettings(rank=4, **lora), seed=0)
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data += scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    folder = home / f"adapter-{uuid4().hex}"
    folder.mkdir(parents=True)
    write_adapter(adapted, folder, str(base))
    Chat(base).save(folder)
    return ArtifactStore(str(home / "artifacts")).put(folder)


def compressed(home: Path, base: Path, inputs: dict[str, ArtifactRef], **compression: Any) -> StepResult:
    """Run step `compress`."""
    from services.trainer.steps.compress import compress

    settings = CompressSettings(base_model=str(base), compression=CompressionSettings(**compression))
    return compress(context_of(home, settings, inputs))


def logits_of(model: Any) -> Any:
    """Return the logits of a few tokens."""
    import torch

    with torch.inference_mode():
        return model(torch.tensor([[7, 20, 31, 44, 5, 61, 90]])).logits


def logits_by_transformers(folder: str) -> Any:
    """Return the same of a model that transformers loads from its folder alone."""
    import torch
    from transformers import AutoModelForCausalLM

    return logits_of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())


def logits_by_peft(base: Path, adapter: ArtifactRef) -> Any:
    """Return the same of a base model with an adapter that is not merged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return logits_of(PeftModel.from_pretrained(loaded, adapter.uri).eval())
