"""Turns an adapter that began with PiSSA into a plain LoRA adapter for the unchanged base model.

PiSSA (Meng et al. 2024) starts with A and B from the principal singular vectors and takes their product out of the base weight:
W = W' + s B0 A0. What the training changes is s (B A - B0 A0), which is a LoRA of twice the rank: [B, -B0] [A; A0]. The product
B0 A0 does not depend on the signs of the singular vectors, so a run that resumes on another machine starts from the same W'.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault

_START = "_neuroweaver_pissa_start"
_A, _B = ".lora_A.", ".lora_B."


def check_rank(model: Any, targets: Sequence[str], rank: int) -> None:
    """Raise UserFault if a layer has fewer singular vectors than the rank."""
    smallest = min(targets, key=lambda path: min(model.get_submodule(path).weight.shape))
    width = min(model.get_submodule(smallest).weight.shape)
    if rank > width:
        message = f"the initialisation pissa needs {rank} singular vectors of each layer, and {smallest} has {width}"
        remedy = f"set the rank to {width} or less, or initialisation to default"
        raise UserFault(Reason(field="training.lora.rank", value=str(rank), message=message, remedy=remedy))


def keep_start(adapted: Any) -> None:
    """Remember A0 and B0 of a model whose PiSSA adapter was just made."""
    start = {name: weight.detach().clone() for name, weight in adapted.named_parameters() if _A in name or _B in name}
    setattr(adapted, _START, start)


def began_with(adapted: Any) -> bool:
    """Whether the adapter began with PiSSA in this process."""
    return hasattr(adapted, _START)


def plain(
    adapted: Any, described: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return PEFT's settings and weights of the plain adapter of twice the rank, with its scale in B, so that alpha / rank is 1."""
    rank = 2 * int(described["r"])
    settings = {**described, "r": rank, "lora_alpha": rank, "init_lora_weights": True, "use_rslora": False}
    return settings, {name: value for name, weight in state.items() for name, value in _doubled(adapted, name, weight)}


def _doubled(adapted: Any, name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if _A not in name and _B not in name:
        yield name, weight
        return
    path, _, matrix = name.removesuffix(".weight").rpartition(".")
    start = getattr(adapted, _START)[f"{path}.{matrix}.default.weight"].to(weight)
    scale = float(adapted.get_submodule(path).scaling["default"])
    yield name, torch.cat([weight, start]) if matrix == "lora_A" else torch.cat([scale * weight, -scale * start], dim=1)
