"""Everything that a training step changes: the trained weights and the optimiser's state, as named tensors for a checkpoint."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from services.trainer.engine.checkpoints import Tensors
from services.trainer.modelling.sharded import is_shared, part_of, whole

_WEIGHTS = "weights"
_ADAPTED = (".lora_", ".modules_to_save.")
"""Parts of the names of an adapter's weights."""


class NoGradient(Exception):
    """Layers have an adapter and get no gradient, so that training would not change them."""

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__(f"{len(layers)} layers got no gradient, for example {layers[0]}")
        self.layers = layers


class ZeroGradient(Exception):
    """The gradient of every trainable weight is zero at the first step, so that training has no effect."""


class Misfit(ValueError):
    """A checkpoint is of other weights than those that are trained, as after a change of a library."""


class TrainedState:
    """The trainable weights of a model and the state that an optimiser keeps of each."""

    def __init__(self, model: Any, optimiser: Any) -> None:
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        if not self._weights:
            raise RuntimeError("the model has no trainable parameters")
        self._optimiser = optimiser

    @property
    def count(self) -> int:
        """The number of trainable parameters."""
        return sum(weight.numel() for weight in self._weights.values())

    def check_gradients(self, *, may_be_zero: bool = False, anywhere: Callable[[bool], bool] = bool) -> None:
        """Raise at the first step if there are no gradients: a frozen or detached adapter trains without effect.

        Raises NoGradient for adapters that the loss does not depend on, ZeroGradient if all gradients are zero. Where all weights
        are trained, a batch need not reach every one, for example every expert. `anywhere` tells whether a flag is set in any process,
        since one that has only a part of every weight sees only the gradients of its parts.
        """
        without = [
            name for name, weight in self._weights.items() if weight.grad is None and any(part in name for part in _ADAPTED)
        ]
        if without:
            raise NoGradient(list(dict.fromkeys(map(_layer, without))))
        gradients = (weight.grad for weight in self._weights.values() if weight.grad is not None)
        if not may_be_zero and not anywhere(any(bool(gradient.any()) for gradient in gradients)):
            raise ZeroGradient

    @property
    def shared(self) -> bool:
        """Whether the processes share these weights, each a part of every one."""
        return is_shared(self._weights.values())

    def groups(self, *, kept: bool = True) -> dict[str, Tensors]:
        """The tensors that a checkpoint must contain: the weights, and one group for each kind of state of the optimiser.

        Those that processes share are gathered one by one, so all must call it; only where they are `kept` does a process hold all.
        A whole number becomes an int64 without dimensions, which no optimiser uses for a tensor. What an optimiser shares between
        weights, like the code of an 8-bit state, is stored with each.
        """
        groups: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        stored: set[int] = set()
        for name, weight in self._weights.items():
            for kind, value in {_WEIGHTS: weight, **self._optimiser.state[weight]}.items():
                tensor = whole(value if isinstance(value, torch.Tensor) else _number(kind, value))
                if not kept:
                    continue
                place = tensor.untyped_storage()._cdata
                groups[kind][name] = tensor.clone() if place in stored else tensor
                stored.add(place)
        return dict(groups)

    def finite(self) -> bool:
        """Return whether every trained weight is a number; of weights that processes share, the parts that this one has."""
        return all(bool(weight.isfinite().all()) for weight in self._weights.values())

    @torch.no_grad()
    def restore(self, groups: Mapping[str, Tensors]) -> None:
        """Load what `groups` returned. Raises Misfit, and changes nothing, if it is of other weights."""
        self._refuse_others(groups)
        for name, weight in self._weights.items():
            weight.copy_(part_of(groups[_WEIGHTS][name].to(weight.device), weight))
            self._optimiser.state[weight] = {
                kind: self._restored(tensors[name], weight)
                for kind, tensors in groups.items()
                if kind != _WEIGHTS and name in tensors
            }

    def _refuse_others(self, groups: Mapping[str, Tensors]) -> None:
        saved = groups.get(_WEIGHTS, {})
        if others := sorted(saved.keys() ^ self._weights.keys()):
            raise Misfit(f"it has other weights than the model: {others[0]} and {len(others) - 1} more differ")
        for name, weight in self._weights.items():
            if saved[name].shape != weight.shape:
                raise Misfit(f"{name} has the shape {list(saved[name].shape)} there and {list(weight.shape)} in the model")
        if (begun := {name for kind, tensors in groups.items() if kind != _WEIGHTS for name in tensors}) and (
            strange := sorted(begun - self._weights.keys())
        ):
            raise Misfit(f"it has a state of the optimiser for {strange[0]}, which the model does not train")

    def _restored(self, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | int:
        """A counter of steps stays on the CPU unless the optimiser's fused kernel reads it."""
        if value.dtype == torch.int64 and value.dim() == 0:
            return int(value)
        if value.dim() or self._optimiser.defaults.get("fused"):
            return part_of(value.to(weight.device), weight)
        return value


def _layer(weight: str) -> str:
    """Return the path in the base model of the layer that an adapter's weight belongs to."""
    path = weight.removeprefix("base_model.model.")
    return next((path.partition(part)[0] for part in _ADAPTED if part in path), path)


def _number(kind: str, value: object) -> torch.Tensor:
    if not isinstance(value, int):
        raise TypeError(f"the optimiser keeps {kind} as {type(value).__name__}, which a checkpoint cannot hold")
    return torch.tensor(value)
