"""Creates, reads, merges and writes LoRA adapters in PEFT's format; a missing weight is an error."""

import json
from pathlib import Path
from typing import Any

import torch

from schemas.reasons import Reason, shortened
from schemas.recipes.lora import LoraSettings
from schemas.results import BASE_MODEL_SHA256
from services.chassis.executor.child import UserFault
from services.language_models.adapters import CONFIG, ForeignOption, stored_lora
from services.language_models.precision import cast_weights
from services.language_models.scoring import TASK, is_scoring, misfits
from services.trainer.modelling import pissa
from services.trainer.modelling.base import load_base
from services.trainer.modelling.base_files import is_fault_of_machine
from services.trainer.modelling.layers import saved_modules, target_names, targets_of
from services.trainer.modelling.sharded import is_shared

WEIGHTS = "adapter_model.safetensors"
RECORD = "training.json"
"""What a training step records beside the adapter: its recipe and the digest of its base model."""
_SAID = 300


def new_adapter(model: Any, lora: LoraSettings, seed: int) -> Any:
    """`model` with a fresh LoRA adapter; the same for the same seed. Raises UserFault if the model lacks a named layer.

    Its weights are fp32 whatever the base's dtype, because small updates are lost in bf16.
    """
    from peft import get_peft_model

    config = lora_config(model, lora)
    torch.manual_seed(seed)
    try:
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    except (
        ValueError,
        TypeError,
        NotImplementedError,
    ) as error:  # PEFT's words for layers and options that it does not support
        message = f"the adapter cannot be made for this base model: {shortened(str(error), _SAID)}"
        remedy = "name other targets, or leave out the options of training.lora that it names"
        raise UserFault(Reason(field="training.lora", message=message, remedy=remedy)) from error
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # PEFT leaves whole modules in the base's type
    if lora.initialisation == "pissa":
        pissa.keep_start(adapted)
    return adapted


def check_lora(model: Any, lora: LoraSettings) -> None:
    """Make the adapter for a model on the meta device, which it alters. Raises UserFault if it cannot be made."""
    if lora.initialisation == "pissa":
        pissa.check_rank(model, targets_of(model, lora), lora.rank)
    new_adapter(model, lora.model_copy(update={"initialisation": "default"}), seed=0)


def lora_config(model: Any, lora: LoraSettings) -> Any:
    """Return PEFT's settings of an adapter for `model`. Raises UserFault if the model lacks a named layer."""
    from peft import LoraConfig

    saved = saved_modules(model, lora)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_names(model, lora),
        modules_to_save=saved or None,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights="pissa" if lora.initialisation == "pissa" else True,
        task_type=TASK if is_scoring(model) else "CAUSAL_LM",  # PEFT adds the head for scores to the modules to save
    )


def read_adapter(model: Any, folder: Path, *, trainable: bool) -> Any:
    """`model` with the adapter in `folder`. Raises UserFault if it is none, or belongs to another base model, or is a reward
    model where a model that writes is needed.

    A model that scores may begin with the adapter of one that writes, and then keeps its own head.
    """
    from peft import get_peft_model

    try:
        config = stored_lora(folder)
        config.inference_mode = not trainable
        writes = config.task_type != TASK
        if is_scoring(model):
            config.task_type = TASK
        elif not writes:
            raise _scores()
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
        read_weights(adapted, folder, new_head=writes and is_scoring(model))
    except UserFault:
        raise
    except ForeignOption as error:
        raise _misfit(str(error)) from error
    except Exception as error:  # the libraries raise whatever their parsers and layers raise
        if is_fault_of_machine(error):
            raise
        raise _misfit(f"it cannot be read ({type(error).__name__})") from error
    return adapted


def refuse_other_base(folder: Path, digest: str) -> None:
    """Raise UserFault if the adapter's record of its training names a base model with another digest."""
    try:
        trained_on = json.loads((folder / RECORD).read_bytes()).get(BASE_MODEL_SHA256, digest)
    except FileNotFoundError:
        return  # an adapter made elsewhere
    except (ValueError, AttributeError, RecursionError) as error:
        raise _misfit(f"its {RECORD} cannot be read") from error
    if trained_on != digest:
        raise _misfit("it was trained on a base model with other files, as their digests tell")


def read_weights(adapted: Any, folder: Path, *, new_head: bool = False) -> None:
    """Load the weights in `folder` into the adapter. Raises UserFault if a weight is missing, unexpected or of another shape."""
    from safetensors.torch import load_file

    try:
        wrong = misfits(adapted, load_file(folder / WEIGHTS), new_head=new_head)
    except RuntimeError as error:
        if is_fault_of_machine(error):
            raise
        raise _misfit("its weights have other shapes than the layers of the base model") from error
    if wrong:
        raise _misfit(wrong)


def _misfit(what: str) -> UserFault:
    return UserFault(
        Reason(
            field="adapter",
            message=f"the adapter does not fit the base model: {what}",
            remedy="name the base model that the adapter was trained on, or train a new adapter",
        )
    )


def _scores() -> UserFault:
    return UserFault(
        Reason(
            field="adapter",
            message="it is a reward model, which scores answers and writes none",
            remedy="name an adapter of another method; a reward model judges, as feedback.judge.reward_model",
        )
    )


def write_weights(adapted: Any, folder: Path) -> None:
    """Write the adapter's weights; equal adapters give equal bytes."""
    _save(_state(adapted), folder)


def write_adapter(adapted: Any, folder: Path, base_model: str) -> None:
    """Write PEFT's two files. `base_model` is the reference that they record.

    An adapter that began with PiSSA is written as a plain one for the unchanged base model.
    """
    described, state = adapted.peft_config["default"].to_dict(), _state(adapted)
    if pissa.began_with(adapted):
        described, state = pissa.plain(adapted, described, state)
    _save(state, folder)
    described |= {"base_model_name_or_path": base_model, "inference_mode": True}
    text = json.dumps(described, indent=2, sort_keys=True, default=sorted)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _state(adapted: Any) -> dict[str, torch.Tensor]:
    """Return the adapter's weights. Every process has them all, also where processes share the base model's, which are left out: PEFT
    would gather those, for which all processes must wait for each other."""
    from peft import get_peft_model_state_dict

    own = {name: tensor for name, tensor in adapted.state_dict().items() if not is_shared([tensor])}
    return dict(get_peft_model_state_dict(adapted, state_dict=own, save_embedding_layers=False))


def _save(state: dict[str, torch.Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({key: value.detach().cpu().contiguous() for key, value in sorted(state.items())}, folder / WEIGHTS)


def load_for_inference(base: Path, adapter: Path | None, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the model for inference; an adapter is merged in fp32, without loss, and the result is then cast to `dtype`."""
    if adapter is None:
        return load_base(base, dtype, device).eval()
    adapted = read_adapter(load_base(base, torch.float32, device), adapter, trainable=False)
    return cast_weights(adapted.merge_and_unload(safe_merge=True), dtype).eval()
