"""Loads models that write answers as they are served: from safetensors, complete, an adapter merged as evaluation merges it.

An adapter is merged in fp32 and cast, so that a served version computes what was evaluated; weights that it leaves alone are those of
the base model in memory, not copies.
"""

from pathlib import Path
from typing import Any

import torch

from services.language_models.adapters import ForeignOption, stored_lora
from services.language_models.head import read_at
from services.language_models.loading import load_causal, load_config, without_report
from services.language_models.precision import cast_weights
from services.language_models.scoring import TASK, misfits

ADAPTER_WEIGHTS = "adapter_model.safetensors"


class Unservable(Exception):
    """A folder contains no model, or no adapter, that can be served; the message says why."""


class MisfitAdapter(Unservable):
    """An adapter belongs to another base model."""


def load_whole(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a model for inference. Raises Unservable, and MemoryError and the like where the machine is at fault."""
    return _reading_last(_weights(folder, dtype, device))


def _weights(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    try:
        config = load_config(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unservable(f"its config.json cannot be read ({type(error).__name__})") from error
    if getattr(config, "quantization_config", None) is not None:
        raise Unservable("its weights are quantised; deploy the version that it was made from")
    with without_report():
        model, found = _loaded(folder, dtype)
    if missing := sorted(found["missing_keys"]):
        raise Unservable(f"{len(missing)} of its weights are missing in its files, for example {missing[0]}")
    return model.to(device)


def _loaded(folder: Path, dtype: torch.dtype) -> Any:
    try:
        return load_causal(folder, dtype, output_loading_info=True)
    except MemoryError:
        raise
    except Exception as error:  # the library raises whatever its parsers and layers raise
        if "out of memory" in str(error) or "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise Unservable(f"it cannot be loaded ({type(error).__name__})") from error


def load_adapted(base: Path, adapter: Path, shared: Any) -> Any:
    """Load a base model with an adapter merged into it. `shared` is the base model in memory, whose type, device and unchanged weights
    it has. Raises Unservable, and MisfitAdapter where the adapter belongs to another base model.
    """
    from peft import get_peft_model

    config, state = _read(adapter)
    model = _weights(base, torch.float32, shared.device)
    try:
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
        wrong = misfits(adapted, state)
    except RuntimeError as error:
        raise MisfitAdapter("its weights have other shapes than the layers of the base model") from error
    except (ValueError, TypeError, KeyError) as error:
        raise MisfitAdapter(f"it cannot be put on the base model ({type(error).__name__})") from error
    if wrong:
        raise MisfitAdapter(wrong)
    merged = cast_weights(adapted.merge_and_unload(safe_merge=True), shared.dtype)
    _share(merged, shared)
    return _reading_last(merged)


def _read(adapter: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = stored_lora(adapter)
        config.inference_mode = True
        state = load_file(adapter / ADAPTER_WEIGHTS)
    except ForeignOption as error:
        raise Unservable(str(error)) from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError) as error:
        raise Unservable(f"the files of the adapter cannot be read ({type(error).__name__})") from error
    if config.task_type == TASK:
        raise Unservable("it is a reward model, which scores answers and writes none")
    return config, state


def _reading_last(model: Any) -> Any:
    """Return a model for inference whose head reads the last position only."""
    read_at(model, lambda hidden: hidden[:, -1])
    return model.eval().requires_grad_(False)


def _share(model: Any, shared: Any) -> None:
    """Let a model use the weights of another in place of its own equal ones."""
    known = dict(shared.named_parameters())
    for name, weight in model.named_parameters():
        same = known.get(name)
        if same is not None and same.shape == weight.shape and torch.equal(same, weight):
            weight.data = same.data


@torch.inference_mode()
def next_logits(model: Any, prompt: list[int]) -> torch.Tensor:
    """Return the logits of the token behind a prompt, of a model whose head reads the last position only."""
    ids = torch.tensor([prompt], device=model.device)
    return model(input_ids=ids, use_cache=False).logits[0, -1].float()  # type: ignore[no-any-return]
