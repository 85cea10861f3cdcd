"""Builds a model without some of its layers, MLP channels or attention heads; its configuration says what is left."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault

What = Literal["channels", "heads", "layers"]
Kept = Sequence[torch.Tensor]
"""The numbers of what stays: one tensor for the layers of a model, else one for each layer."""
_NEEDED: Mapping[What, tuple[str, ...]] = {
    "channels": ("gate_proj", "up_proj", "down_proj"),
    "heads": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "layers": (),
}
"""The linear layers of the modules that are made narrower."""


@dataclass(frozen=True)
class PrunableParts:
    """What can be removed from a model."""

    what: What
    count: int
    """Number of layers of the model, of channels of an MLP, or of groups of heads of an attention."""
    layers: str
    """Path of the list of layers."""
    paths: Sequence[str] = ()
    """Paths of the MLPs or attentions, one for each layer."""
    width: int = 1
    """Numbers per head."""


def parts_of(model: Any, what: What) -> PrunableParts:
    """Return the parts of a model, which may be on the meta device. Raises UserFault if it is not made of such parts."""
    config = model.config.get_text_config()
    depth = config.num_hidden_layers
    lists = [
        path for path, module in model.named_modules() if isinstance(module, torch.nn.ModuleList) and len(module) == depth
    ]
    if not lists:
        raise _unsupported(what, "it has no list of layers")
    layers = lists[0]
    if what == "layers":
        return _several(PrunableParts(what, depth, layers))
    paths = [
        path for path, module in model.get_submodule(layers).named_modules(prefix=layers) if _has(module, _NEEDED[what])
    ]
    if len(paths) != depth:
        raise _unsupported(what, f"its layers do not consist of one {', '.join(_NEEDED[what])} each")
    if what == "channels":
        return _several(PrunableParts(what, config.intermediate_size, layers, paths))
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return _several(PrunableParts(what, groups, layers, paths, width))


def smaller(model: Any, parts: PrunableParts, kept: Kept) -> Any:
    """Return a model of the same class with what is kept. Raises UserFault if the architecture does not allow it."""
    config = _configuration(model.config, parts, kept)
    with torch.device("meta"):
        made = type(model)(config)
    state = _shallower(model.state_dict(), parts, kept) if parts.what == "layers" else _narrower(model, parts, kept)
    try:
        made.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise _unsupported(parts.what, "its other weights depend on them") from error
    made.tie_weights()
    return made.eval()


def refuse_unsupported(model: Any, what: What) -> None:
    """Raise UserFault if nothing of the kind can be removed from a model, which is on the meta device."""
    parts = parts_of(model, what)
    kept = torch.arange(parts.count - 1)
    smaller(model, parts, [kept] if what == "layers" else [kept] * len(parts.paths))


def _configuration(config: Any, parts: PrunableParts, kept: Kept) -> Any:
    made = deepcopy(config)
    text, stays = made.get_text_config(), len(kept[0])
    match parts.what:
        case "layers":
            for name, value in list(vars(text).items()):  # such as the type of each layer
                if isinstance(value, list) and len(value) == parts.count:
                    setattr(text, name, [value[number] for number in kept[0].tolist()])
            text.num_hidden_layers = stays
        case "channels":
            text.intermediate_size = stays
        case "heads":
            each = text.num_attention_heads // parts.count
            text.num_attention_heads, text.head_dim = stays * each, parts.width
            text.num_key_value_heads = stays
    return made


def _shallower(state: Mapping[str, torch.Tensor], parts: PrunableParts, kept: Kept) -> dict[str, torch.Tensor]:
    new = {f"{parts.layers}.{old}.": f"{parts.layers}.{number}." for number, old in enumerate(kept[0].tolist())}
    made = {}
    for name, weight in state.items():
        if not name.startswith(f"{parts.layers}."):
            made[name] = weight
            continue
        prefix = f"{parts.layers}.{name.removeprefix(f'{parts.layers}.').split('.')[0]}."
        if prefix in new:
            made[new[prefix] + name.removeprefix(prefix)] = weight
    return made


def _narrower(model: Any, parts: PrunableParts, kept: Kept) -> dict[str, torch.Tensor]:
    state = dict(model.state_dict())
    reads = ("gate_proj", "up_proj") if parts.what == "channels" else ("q_proj", "k_proj", "v_proj")
    writes = "down_proj" if parts.what == "channels" else "o_proj"
    for path, stays in zip(parts.paths, kept, strict=True):
        for name in (*reads, writes):
            dim = 1 if name == writes else 0
            for kind in ("weight", "bias") if dim == 0 else ("weight",):
                key = f"{path}.{name}.{kind}"
                if key in state:
                    state[key] = _selected(state[key], dim, parts.count, stays)
    return state


def _selected(weight: torch.Tensor, dim: int, count: int, stays: torch.Tensor) -> torch.Tensor:
    """Return the parts that stay of a dimension that consists of `count` parts of one size."""
    size = weight.shape[dim] // count
    numbers = (stays[:, None] * size + torch.arange(size)).flatten()
    return weight.index_select(dim, numbers.to(weight.device))


def _has(module: Any, names: Sequence[str]) -> bool:
    return all(isinstance(getattr(module, name, None), torch.nn.Linear) for name in names)


def _several(parts: PrunableParts) -> PrunableParts:
    if parts.count < 2:
        raise _unsupported(
            parts.what, "it has only one of them for each layer" if parts.paths else "it has only one of them"
        )
    return parts


def _unsupported(what: str, why: str) -> UserFault:
    remedy = "set compression.prune.what to weights or layers, or name another base model"
    return UserFault(
        Reason(
            field="compression.prune.what",
            value=repr(what),
            message=f"{what} of this model cannot be removed: {why}",
            remedy=remedy,
        )
    )
