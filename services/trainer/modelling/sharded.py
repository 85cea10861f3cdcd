"""Loads a model whose weights several processes share (FSDP2), each a part of every one, and turns such weights into whole ones.

transformers splits the model while it is loaded, by its plan for the architecture, so that no process ever holds all of it. The weights
are DTensors then, on GPUs and on processors alike; accelerate's own plugin leaves them whole on processors, without a word.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from schemas.reasons import Reason, first_of
from schemas.recipes.methods import MethodSettings, trains_all
from schemas.recipes.sft import TrainingSettings
from services.chassis.executor.child import UserFault
from services.language_models.adapters import stored_lora
from services.trainer.modelling.architecture import Architecture

_OTHER_BASE = "name another base model"
_NAMED = 3
"""Number of weights that a message names."""


def shared_by(processes: int) -> Mapping[str, Any]:
    """Return the options with which transformers loads a model that so many processes share; they must be connected."""
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(fsdp_size=processes)}


def refuse_unshareable(
    section: str, settings: MethodSettings, architecture: Architecture, adapter: Path | None, processes: int
) -> None:
    """Raise UserFault if so many processes cannot share the weights of this training, which may begin with an adapter; 1: each has all of
    them."""
    if processes == 1:
        return
    if not isinstance(settings, TrainingSettings):
        raise _fault(section, None, "only trainings of the method sft share weights", "take the method sft")
    lora, whole = settings.lora, trains_all(settings)
    unable = (
        ("quantization", settings.quantization, settings.quantization != "none", "weights of 4 bits"),
        ("optimiser.name", settings.optimiser.name, whole and settings.optimiser.name != "adamw", "the state of this optimiser"),
        ("lora.dora", "true", not whole and lora.dora, "magnitudes of weights"),
        ("lora.initialisation", lora.initialisation, not whole and lora.initialisation != "default", "weights that it decomposes"),
        ("lora.modules_to_save", ", ".join(lora.modules_to_save), not whole and bool(lora.modules_to_save), "modules of its own"),
    )  # fmt: skip
    for name, value, is_set, what in unable:
        if is_set:
            raise _fault(f"{section}.{name}", value, f"{what} cannot be shared", "leave it out")
    if adapter is not None and ((stored := stored_lora(adapter)).use_dora or stored.modules_to_save):
        raise _fault(
            "adapter", None, "the adapter that it begins with has magnitudes or modules of its own", "name another adapter"
        )
    _refuse_base(architecture, processes, trained=whole)


def _refuse_base(architecture: Architecture, processes: int, *, trained: bool) -> None:
    """Refuse an architecture whose plan leaves out weights, since layers with adapters are called past the rest, and a vocabulary that
    embeddings and head share and that does not divide evenly, if it is trained.

    transformers ties the head to the embeddings after it has split both, so that PyTorch has two records of one weight; where it pads the
    parts to one size, it makes a copy for each record, and one of them never learns (transformers 5.23, torch 2.13).
    """
    model, kind = architecture.empty(), str(architecture.config.model_type)
    planned = [f"{module}.*" for module in model.fsdp_plan]
    left = [name for name, _ in model.named_parameters() if not any(fnmatchcase(name, pattern) for pattern in planned)]
    if left:
        raise _fault(
            "base_model",
            kind,
            f"the library's plan for models of this type leaves out {first_of(left, _NAMED)}",
            _OTHER_BASE,
        )
    embedded, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    if trained and head is not None and head.weight is embedded and len(embedded) % processes:
        what = f"its head has the weights of its embeddings, whose {len(embedded)} tokens {processes} processes cannot share evenly"
        raise _fault("base_model", kind, what, f"{_OTHER_BASE}, train an adapter")


def _fault(field: str, value: str | None, why: str, remedy: str) -> UserFault:
    return UserFault(
        Reason(
            field=field,
            value=value,
            message=f"the processes of this trainer share the weights of a training (fsdp): {why}",
            remedy=f"{remedy}, or let the operator set NEUROWEAVER_TRAINER_STRATEGY to ddp",
        )
    )


def largest_share(model: Any) -> float:
    """Return the share of the weights that the largest part of the plan has: the processes hold all of it while they compute it."""
    of = {name: sum(weight.numel() for weight in module.parameters()) for name, module in model.named_modules() if name}
    planned = (size for name, size in of.items() if any(fnmatchcase(name, pattern) for pattern in model.fsdp_plan))
    return float(max(planned, default=0) / max(1, sum(weight.numel() for weight in model.parameters())))


def is_shared(weights: Iterable[torch.Tensor]) -> bool:
    """Whether the processes really share some of these weights."""
    return any(isinstance(weight, DTensor) for weight in weights)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor, in main memory if the processes share it. All of them must call it, for the same tensors in the same order."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of `tensor` if the processes share `weight`, which has the same shape; else all of it."""
    if not isinstance(weight, DTensor) or tensor.shape != weight.shape:
        return tensor
    return distribute_tensor(tensor, weight.device_mesh, weight.placements, src_data_rank=None)


@contextmanager
def only_in_parts(model: Any) -> Iterator[None]:
    """Whatever this block computes with the model, no process holds whole weights before and after it.

    A pass without a backward pass leaves the weights of some layers whole, and the next one would compute with what they were.
    """
    from torch.distributed.fsdp import FSDPModule

    layers = [layer for layer in model.modules() if isinstance(layer, FSDPModule)]
    for layer in layers:
        layer.reshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.reshard()


def whole_weights(model: Any) -> Mapping[str, torch.Tensor]:
    """Return all weights in the first process, in main memory, and nothing in the others; all of them must call it.

    A weight that two layers share is there once, as in a file that one process writes.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    found: Mapping[str, Any] = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: weight for name, weight in found.items() if name not in model.all_tied_weights_keys}
