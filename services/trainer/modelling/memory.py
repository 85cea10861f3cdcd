"""Estimates the most memory that a training takes, part by part, without loading a weight.

Weights, gradients and moments follow from shapes (Rajbhandari et al. 2020, ZeRO, section 3). Activations are counted as in
Korthikanti et al. 2023, but by tracing: PyTorch runs the forward pass of one and of two layers on tensors without memory, and the
tensors that it keeps for the backward pass are added up, so that the attention, the adapter and the architecture count as they are.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from services.trainer.modelling.adapter import new_adapter
from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.layers import linear_layers
from services.trainer.modelling.sharded import largest_share
from services.trainer.modelling.tracing import emptied, without_memory
from services.trainer.modelling.whole import with_trained_weights

_MOMENTS = {"adamw": 2 * 4, "adamw_8bit": 2 * (1 + 4 / 256), "adafactor": 4}
"""Bytes of an optimiser's state of a trainable weight: AdamW's two moments, in 8 bits with a scale for each block of 256 (Dettmers et
al. 2022); Adafactor's rows and columns, at the most."""
_QUANTISED_FROM = 4096
"""Smaller weights keep their moments in fp32."""
_LOGIT = {torch.float32: 8, torch.bfloat16: 10}
"""Bytes of a logit: itself in fp32 and its gradient (`engine.chosen_tokens`); in bf16 also one of them in bf16."""
_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4-bit NormalFloat with doubly quantised scales per block of 64 (Dettmers et al. 2023)."""
LIBRARIES = {"cpu": 950 * 2**20, "cuda": 600 * 2**20}
"""What the process takes before the model is loaded: PyTorch, transformers, TRL and datasets; on a GPU, CUDA's context."""
_FRAGMENTED = {"cpu": 1.7, "cuda": 1.25}
"""Memory that an allocator holds for each byte of activations and logits in use, gaps included. Measured with glibc's heap: 1.3 to 1.8."""
_BACKWARD = 1.4
"""What the backward pass of a layer takes at once, relative to the layer's activations (measured)."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device; the sum is the peak within a step."""

    PARTS: ClassVar[tuple[str, ...]] = ("weights", "adapter", "gradients", "optimiser", "activations", "logits", "overhead")

    weights: int
    adapter: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        """The peak."""
        return sum(int(getattr(self, name)) for name in self.PARTS)


@dataclass(frozen=True)
class TrainedBatch:
    """The largest part of a batch that is in memory at once."""

    rows: int
    length: int
    """Tokens of each row, with padding."""
    supervised: int
    """Supervised tokens of all rows."""


def estimated(
    architecture: Architecture, lora: LoraSettings | None, optimiser: OptimiserSettings, batch: TrainedBatch, dtype: torch.dtype,
    quantization: str, device: str, attention: str,
) -> MemoryEstimate:  # fmt: skip
    """Return the estimate for a training of an adapter, or of all weights if `lora` is None. Raises BaseFault and UserFault as building
    model and adapter does."""
    model = architecture.empty()
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    frozen = weights_of(model, torch.float32 if lora is None else dtype, quantization)
    adapted = _trained(model, lora)
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    activations = _activations(architecture, lora, batch, dtype, attention, optimiser.activation_checkpointing)
    held = _FRAGMENTED[device]
    return MemoryEstimate(
        weights=frozen,
        adapter=0 if lora is None else 4 * trained,
        gradients=4 * trained,
        optimiser=state_bytes(adapted, optimiser),
        activations=round(held * activations),
        logits=round(held * _LOGIT[dtype] * batch.supervised * vocabulary),
        overhead=LIBRARIES[device],
    )


def shared_among(found: MemoryEstimate, model: Any, processes: int, device: str, *, trains_all: bool) -> MemoryEstimate:
    """Return what each of `processes` takes if they share the weights (FSDP: Zhao et al. 2023), and what they keep of each if all are trained.

    Of the part that is computed there are two copies, as it arrives and as it is used. On a processor the heap keeps the room of all
    parts that were fetched (measured), and there the first process also gathers the weights and their moments for a checkpoint.
    """
    part, on_heap = largest_share(model), device == "cpu"
    fetched = 2 * found.weights * (1.0 if on_heap else part)
    if trains_all and on_heap:
        fetched = max(fetched, found.weights + found.optimiser)
    weights = round(found.weights / processes + fetched)
    if not trains_all:
        return replace(found, weights=weights)
    gradients = round(found.gradients * min(1.0, 1 / processes + part))
    return replace(found, weights=weights, gradients=gradients, optimiser=found.optimiser // processes)


def state_bytes(model: Any, optimiser: OptimiserSettings) -> int:
    """Return the bytes of an optimiser's state of the trainable weights; embeddings and small weights are never quantised."""
    whole = {id(weight) for part in model.modules() if isinstance(part, torch.nn.Embedding) for weight in part.parameters()}
    total = 0.0
    for weight in model.parameters():
        if weight.requires_grad:
            plain = optimiser.name == "adamw_8bit" and (id(weight) in whole or weight.numel() < _QUANTISED_FROM)
            total += _MOMENTS["adamw" if plain else optimiser.name] * weight.numel()
    return int(total)


def _trained(model: Any, lora: LoraSettings | None) -> Any:
    """Return the model with what is trained: an adapter, or all weights if `lora` is None."""
    if lora is not None:
        return new_adapter(model, lora.model_copy(update={"initialisation": "default"}), seed=0)
    for weight in model.parameters():
        weight.requires_grad_(False)
    return with_trained_weights(model)


def weights_of(model: Any, dtype: torch.dtype, quantization: str) -> int:
    """Return the bytes of the weights of a model on the meta device."""
    whole = sum(weight.numel() for weight in model.parameters())
    if quantization == "none":
        return int(whole * dtype.itemsize)
    small = sum(model.get_submodule(path).weight.numel() for path in linear_layers(model))
    return int(small * _NF4 + (whole - small) * dtype.itemsize)


def _activations(
    architecture: Architecture,
    lora: LoraSettings | None,
    batch: TrainedBatch,
    dtype: torch.dtype,
    attention: str,
    recomputed: bool,
) -> int:
    """Return the bytes of activations. `recomputed`: of each layer only its input is kept, and one layer is run again at a time."""
    text = architecture.config.get_text_config()
    layers = int(text.num_hidden_layers)
    if lora is not None:
        lora = lora.model_copy(update={"targets": (), "modules_to_save": ()})
    one = _kept_by(_shallow(architecture, 1, attention), lora, batch, dtype)
    layer = max(0, _kept_by(_shallow(architecture, 2, attention), lora, batch, dtype) - one) if layers > 1 else one
    between = batch.rows * batch.length * int(text.hidden_size) * dtype.itemsize
    kept = one + (layers - 1) * (between if recomputed else layer)
    return round(kept + _BACKWARD * layer)


def _shallow(architecture: Architecture, layers: int, attention: str) -> Any:
    config = copy.deepcopy(architecture.config)
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    config._attn_implementation = attention
    return Architecture(config, architecture.model_class).empty()


def _kept_by(model: Any, lora: LoraSettings | None, batch: TrainedBatch, dtype: torch.dtype) -> int:
    """Return the bytes that the forward pass of the layers keeps for the backward pass."""
    for weight in model.parameters():
        weight.requires_grad_(False)
    adapted = _trained(model if lora is None else model.to(dtype), lora).train()
    kept: dict[int, torch.UntypedStorage] = {}
    with without_memory():
        own = emptied(adapted)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        ids = torch.zeros(batch.rows, batch.length, dtype=torch.long)
        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), bf16:
            output = _decoder(adapted)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        return sum(storage.nbytes() for storage in kept.values()) if output is not None else 0


def _decoder(model: Any) -> Any:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).get_decoder()
