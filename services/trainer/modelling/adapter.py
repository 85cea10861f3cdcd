"""Creates, reads, merges and writes LoRA adapters in PEFT's format; a missing weight is an error."""

import json
from pathlib import Path
from typing import Any

import torch

from schemas.recipes import LoraSettings
from services.trainer.modelling.base import load_base
from services.trainer.modelling.layers import all_linear

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def new_adapter(model: Any, lora: LoraSettings, seed: int) -> Any:
    """`model` with a fresh LoRA adapter on all linear layers but the head; the same for the same seed.

    Its weights are fp32 whatever the base's dtype, because small updates are lost in bf16.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=all_linear(model),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def read_adapter(model: Any, folder: Path, *, trainable: bool) -> Any:
    """`model` with the adapter in `folder`. Raises ValueError if a weight is missing or unexpected."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = not trainable
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    read_weights(adapted, folder)
    return adapted


def read_weights(adapted: Any, folder: Path) -> None:
    """Load the weights in `folder` into the adapter. Raises ValueError if a weight is missing or unexpected."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    result = set_peft_model_state_dict(adapted, load_file(folder / WEIGHTS))
    missing = [key for key in result.missing_keys if "lora_" in key]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"adapter {folder} does not fit its base model: {len(missing)} weights are missing, for example {missing[:1]}, "
            f"{len(result.unexpected_keys)} unknown, for example {list(result.unexpected_keys)[:1]}"
        )


def write_weights(adapted: Any, folder: Path) -> None:
    """Write the adapter's weights; equal adapters give equal bytes."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    save_file({key: value.detach().cpu().contiguous() for key, value in sorted(state.items())}, folder / WEIGHTS)


def write_adapter(adapted: Any, folder: Path, base_model: str) -> None:
    """Write PEFT's two files. `base_model` is the reference that they record."""
    write_weights(adapted, folder)
    described = adapted.peft_config["default"].to_dict()
    described |= {"base_model_name_or_path": base_model, "inference_mode": True}
    text = json.dumps(described, indent=2, sort_keys=True, default=sorted)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def load_for_inference(base: Path, adapter: Path | None, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the model for inference; an adapter is merged in fp32, without loss, and the result is then cast to `dtype`."""
    if adapter is None:
        return load_base(base, dtype, device).eval()
    adapted = read_adapter(load_base(base, torch.float32, device), adapter, trainable=False)
    return adapted.merge_and_unload(safe_merge=True).to(dtype).eval()
