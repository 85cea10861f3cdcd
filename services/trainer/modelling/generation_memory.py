"""Estimates the most memory that generating and scoring answers takes, without loading a weight.

The keys and values of every token that is being decoded follow from shapes (Pope et al. 2023, *Efficiently Scaling Transformer
Inference*, section 3.3); a cache that keeps less, as of a sliding window, is counted as if it kept all.
"""

from dataclasses import dataclass

import torch

from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.memory import LIBRARIES

_SCORED = 16
"""Bytes of a logit that is scored or sampled from: itself, in fp32 too, its probability and their sum, of which not all live at once."""
_GROWING = 1.5
"""What a cache takes while it grows: each layer's is copied for every token, which leaves gaps in the allocator's memory."""
_PREFILLED = 12
"""Activations of a token of a prompt, in hidden states, while a layer reads it."""


@dataclass(frozen=True)
class Decoded:
    """What is generated and scored at once."""

    prompts: int
    answers: int
    """Answers to each prompt."""
    prompt_length: int
    answer_length: int
    scored: int
    """Tokens of a reference answer."""


@dataclass(frozen=True)
class GenerationEstimate:
    """Bytes on the device."""

    weights: int
    cache: int
    logits: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """The peak."""
        return self.weights + self.cache + self.logits + self.activations + self.overhead


def generation_estimate(architecture: Architecture, batch: Decoded, dtype: torch.dtype, device: str) -> GenerationEstimate:
    """Return the estimate for a model whose adapter is merged. Raises BaseFault as building the model does."""
    model = architecture.empty()
    config = architecture.config.get_text_config()
    heads = int(config.num_attention_heads)
    kept_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    rows = batch.prompts * batch.answers
    tokens = rows * (batch.prompt_length + batch.answer_length)
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    return GenerationEstimate(
        weights=sum(weight.numel() for weight in model.parameters()) * dtype.itemsize,
        cache=round(_GROWING * 2 * int(config.num_hidden_layers) * kept_heads * width * dtype.itemsize * tokens),
        logits=_SCORED * vocabulary * max(rows, batch.prompts * batch.scored),
        activations=_PREFILLED * batch.prompts * batch.prompt_length * int(config.hidden_size) * dtype.itemsize,
        overhead=LIBRARIES[device],
    )
