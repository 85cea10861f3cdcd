"""Finds the layers of a model that a LoRA adapter changes, by the names and patterns of the settings."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import torch

from schemas.reasons import Reason, shown
from schemas.recipes.lora import LoraSettings
from services.chassis.executor.child import UserFault

_READ_DIRECTLY: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"), frozenset({"out_proj", "dt_proj"})),
    "jamba": frozenset({"dt_proj"}),
}
"""By the type of a state-space model its layers whose weights are read past an adapter: it would get no gradient, and PEFT
refuses most of them."""
_NAMED = 12


def target_names(model: Any, lora: LoraSettings) -> list[str]:
    """Return the names of the layers to adapt as PEFT reads them: each matches the end of a path. Raises UserFault."""
    return short_names(model, targets_of(model, lora))


def targets_of(model: Any, lora: LoraSettings) -> list[str]:
    """Return the paths of the layers to adapt. Raises UserFault for a name or pattern that no linear layer has."""
    linear = linear_layers(model)
    if not linear:
        message, remedy = "it has no linear layer that an adapter could change", "name another base model"
        raise UserFault(Reason(field="base_model", message=message, remedy=remedy))
    if not lora.targets:
        return linear
    every = [path for path, part in model.named_modules() if _is_linear(part)]
    chosen = {target: [path for path in every if _matches(path, target)] for target in lora.targets}
    for target, paths in chosen.items():
        if not paths:
            names = sorted({last(path) for path in linear})
            raise UserFault(
                Reason(
                    field="training.lora.targets",
                    value=shown(target),
                    message="no linear layer of the base model has this name",
                    remedy=f"name some of {', '.join(names[:_NAMED])}, or leave targets empty for all linear layers",
                )
            )
    wanted = {path for paths in chosen.values() for path in paths}
    return [path for path in every if path in wanted]


def short_names(model: Any, paths: Sequence[str]) -> list[str]:
    """Return the last parts of the paths, or whole paths where a last part would match another module, too."""
    inside, names = set(paths), {last(path) for path in paths}
    shared = {last(path) for path, _ in model.named_modules() if last(path) in names and path not in inside}
    return sorted({path if last(path) in shared else last(path) for path in paths})


def saved_modules(model: Any, lora: LoraSettings) -> list[str]:
    """Return the names of the modules that are trained as a whole. Raises UserFault if the model does not have one."""
    for name in lora.modules_to_save:
        found = [part for path, part in model.named_modules() if path == name or path.endswith(f".{name}")]
        if not any(True for part in found for _ in part.parameters()):
            raise _unsaved(name, "no module of the base model with weights has this name", "name another, or leave it out")
        if any(weight is tied for part in found for weight in part.parameters() for tied in _tied(model)):
            message = (
                "the base model's embeddings and its head are one tensor, which cannot be stored as a module of its own"
            )
            raise _unsaved(name, message, "leave it out, or name a base model whose tie_word_embeddings is false")
    return list(lora.modules_to_save)


def _unsaved(name: str, message: str, remedy: str) -> UserFault:
    return UserFault(Reason(field="training.lora.modules_to_save", value=shown(name), message=message, remedy=remedy))


def _tied(model: Any) -> list[Any]:
    """Return the weight that the embeddings and the head share, if they do."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return [head.weight] if head is not None and head.weight is embeddings.weight else []


def linear_layers(model: Any) -> list[str]:
    """Return the paths of all linear layers of the text decoder but the head: nn.Linear, and GPT-2's Conv1D."""
    head = model.get_output_embeddings()
    direct = _READ_DIRECTLY.get(model.config.get_text_config().model_type, frozenset())
    return [path for path, part in _of_decoder(model) if _is_linear(part) and part is not head and last(path) not in direct]


def last(path: str) -> str:
    """Return the last part of a module's path."""
    return path.rpartition(".")[2]


def _matches(path: str, target: str) -> bool:
    if "*" in target or "?" in target:
        return fnmatchcase(path, target)
    return path == target or path.endswith(f".{target}")


def _is_linear(part: Any) -> bool:
    """Whether a layer computes what its class says; some routers derive from nn.Linear and return several tensors."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(part, torch.nn.Linear):
        kind: Any = type(part)
        plain = kind.forward is torch.nn.Linear.forward or kind.__module__.startswith("bitsandbytes.")
        return plain or _computes_as_linear(kind)
    return isinstance(part, Conv1D)


@lru_cache
def _computes_as_linear(kind: Any) -> bool:
    """Whether a class with a forward pass of its own, like that of Falcon's layers, computes the same as nn.Linear."""
    inputs = torch.linspace(-1, 1, 6).reshape(1, 2, 3)
    try:
        with torch.random.fork_rng(devices=[]):
            layer = kind(3, 4, device="cpu", dtype=torch.float32)
        return torch.allclose(layer(inputs), torch.nn.functional.linear(inputs, layer.weight, layer.bias))
    except Exception:  # it takes other arguments, or returns something else
        return False


def _of_decoder(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the modules of the text decoder with their paths in `model`: images and sounds are not trained on."""
    decoder = model.get_decoder()
    within = {id(part) for part in decoder.modules()}
    yield from ((path, part) for path, part in model.named_modules() if id(part) in within)
