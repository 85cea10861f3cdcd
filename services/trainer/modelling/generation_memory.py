"""Estimates the most memory that generating and scoring answers takes, without loading a weight.

The keys and values of every token that is being decoded follow from shapes (Pope et al. 2023, *Efficiently Scaling Transformer
Inference*, section 3.3); a cache that keeps less, as of a sliding window, is counted as if it kept all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch

from services.language_models.logits import tokens_of_logits
from services.trainer.modelling.architecture import Architecture

LIBRARIES = {"cpu": 790 * 2**20, "cuda": 600 * 2**20}
"""What the process takes before the model is loaded: PyTorch and transformers, without the libraries of training; on a GPU, CUDA's
context."""
SCORED = 12
"""Bytes of a logit that is scored: itself, in fp32 too, and the logarithm of its probability (measured)."""
_SAMPLED, _OF_NUCLEUS = 24, 50
"""Bytes of a logit that is sampled from: itself, in fp32 too, its probability and the sums; of the nucleus also sorted, with its place."""
_GROWING = 1.5
"""What a cache takes while it grows: each layer's is copied for every token, which leaves gaps in the allocator's memory."""
_READ = 28
"""Activations of a token, in hidden states, while a layer reads it: those of its norms in fp32, of its attention and of its MLP (measured)."""

_SAME = 0.05
"""Difference of sizes up to which weights are taken to have the type of the files that they are read from."""


@dataclass(frozen=True)
class Decoded:
    """What is generated and scored at once."""

    prompts: int
    answers: int
    """Answers to each prompt."""
    prompt_length: int
    answer_length: int
    scored: int
    """Tokens of reference answers that are scored at once."""
    nucleus: bool = True
    """Whether answers are sampled from a part of the probability mass (top_p)."""


@dataclass(frozen=True)
class InferenceEstimate:
    """Bytes on the device, of a step that computes with a model and does not train it."""

    weights: int
    cache: int
    logits: int
    activations: int
    overhead: int
    copies: int = 0
    """What is made of the weights, beside them."""
    merging: int = 0
    """What an adapter that was merged in fp32 leaves behind. On a processor the allocator keeps that memory in pieces that a cache does
    not fit into; on a GPU it is what the merge takes beyond all that."""
    files: int = 0
    """What the mapped files take beyond all that while the weights are read. The kernel takes this memory back when it runs short."""

    @property
    def parts(self) -> Mapping[str, int]:
        """Bytes by part."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def total(self) -> int:
        """The peak."""
        return sum(self.parts.values())


def generation_estimate(
    architecture: Architecture, batch: Decoded, dtype: torch.dtype, device: str, *, adapted: bool = False, files: int = 0
) -> InferenceEstimate:
    """Return the estimate for a model, into which an adapter is merged if it is `adapted`. `files`: bytes of its files that are mapped
    while they are read. Raises BaseFault as building the model does.
    """
    rows = batch.prompts * batch.answers
    sampled = (_OF_NUCLEUS if batch.nucleus else _SAMPLED) * rows
    tokens = rows * (batch.prompt_length + batch.answer_length)
    return at_its_peak(
        architecture,
        dtype,
        device,
        cache=round(_GROWING * cache_bytes(architecture, tokens, dtype)),
        logits=architecture.vocabulary * max(sampled, SCORED * batch.scored),
        activations=activation_bytes(architecture, batch.prompts * batch.prompt_length, dtype),
        full=adapted,
        files=files,
    )


def scored_at_once(architecture: Architecture, rows: int, tokens: int) -> int:
    """Return the tokens that are scored at once, of so many rows with so many tokens each: a batch is bounded by its logits."""
    return min(rows * tokens, max(tokens, tokens_of_logits(architecture.vocabulary)))


def at_its_peak(
    architecture: Architecture, dtype: torch.dtype, device: str, *,
    cache: int, logits: int, activations: int, full: bool, files: int, copies: int = 0,
) -> InferenceEstimate:  # fmt: skip
    """Return the estimate of a step that computes with these. `full`: its weights are first loaded in fp32, whatever it computes in."""
    weights = architecture.parameters * dtype.itemsize
    loaded = 4 * architecture.parameters if full else weights
    computes = weights + cache + logits + activations + copies
    merging = (loaded if device == "cpu" else max(0, loaded - computes)) if full else 0
    reads = loaded + _mapped(files, loaded) if files else 0
    return InferenceEstimate(
        weights=weights, cache=cache, logits=logits, activations=activations, copies=copies, merging=merging,
        files=max(0, reads - computes - merging), overhead=LIBRARIES[device],
    )  # fmt: skip


def _mapped(files: int, loaded: int) -> int:
    """Return what mapped files take beside the weights that are read from them. Weights of the type in the files are no copies."""
    return 0 if abs(files - loaded) <= _SAME * loaded else files


def cache_bytes(architecture: Architecture, tokens: int, dtype: torch.dtype) -> int:
    """Return the bytes of the keys and values of so many tokens."""
    config = architecture.config.get_text_config()
    heads = int(config.num_attention_heads)
    kept_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2 * int(config.num_hidden_layers) * kept_heads * width * dtype.itemsize * tokens


def activation_bytes(architecture: Architecture, tokens: int, dtype: torch.dtype) -> int:
    """Return the bytes of activations of tokens that are read at once."""
    return _READ * tokens * int(architecture.config.get_text_config().hidden_size) * dtype.itemsize
