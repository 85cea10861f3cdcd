"""Lays several rows behind each other in one sequence, each with positions from 0, and proves that a model keeps them apart.

Without an attention mask, transformers tells rows apart by their positions: it gives flash attention the bounds of each row, and
PyTorch's and eager attention a mask in blocks (`transformers.masking_utils.find_packed_sequence_indices`).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.language_models.padding import common_size
from services.trainer.modelling.architecture import Architecture

FLASH = "flash_attention_2"
_UNSUPERVISED = -100
_VOCABULARY = 64
_ROWS = ([5, 6, 7, 8, 9], [10, 11, 12, 13])
_ROUNDING = 1e-4
"""Largest difference, relative to the largest logit, that the order of sums makes in fp32."""


def placed(lengths: Sequence[int], limit: int | None) -> list[list[int]]:
    """Return the rows of each sequence: best fit decreasing, sequences of at most `limit` tokens, or all rows in one."""
    if limit is None:
        return [list(range(len(lengths)))]
    sequences: list[list[int]] = []
    left: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        fitting = [number for number, space in enumerate(left) if space >= lengths[row]]
        if fitting:
            best = min(fitting, key=lambda number: left[number])
            sequences[best].append(row)
            left[best] -= lengths[row]
        else:
            sequences.append([row])
            left.append(limit - lengths[row])
    return sequences


@dataclass(frozen=True)
class Packing:
    """A collator of rows with `input_ids` and `labels`; the tensors that it returns are [sequences, tokens], without a mask."""

    limit: int | None
    """The most tokens of a sequence; None puts all rows into one, as flash attention reads them."""
    pad_id: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        sequences = placed([len(example["input_ids"]) for example in examples], self.limit)
        width = max(sum(len(examples[row]["input_ids"]) for row in rows) for rows in sequences)
        if self.limit is not None:
            width = common_size(width, self.limit)
        ids = torch.full((len(sequences), width), self.pad_id)
        labels = torch.full_like(ids, _UNSUPERVISED)
        positions = torch.zeros_like(ids)  # each token of padding is a row of its own
        for number, rows in enumerate(sequences):
            start = 0
            for row in rows:
                own = slice(start, start + len(examples[row]["input_ids"]))
                ids[number, own] = torch.tensor(examples[row]["input_ids"])
                labels[number, own] = torch.tensor(examples[row]["labels"])
                labels[number, start] = _UNSUPERVISED  # the row before does not predict it
                positions[number, own] = torch.arange(own.stop - start)
                start = own.stop
        return {"input_ids": ids, "labels": labels, "position_ids": positions}


def packed_attention(architecture: Architecture, dtype: torch.dtype, device: torch.device) -> str:
    """Return the attention for packed rows: flash attention where the GPU, its dtype and the architecture have it."""
    from transformers.utils import is_flash_attn_2_available

    fast = device.type == "cuda" and dtype == torch.bfloat16 and is_flash_attn_2_available()
    return FLASH if fast and architecture.model_class._supports_flash_attn else architecture.attention


def mixes_rows(architecture: Architecture) -> bool:
    """Whether the architecture reads other rows of a sequence, too.

    A model of one layer of each kind, with random weights and a small vocabulary, computes two rows alone and in one sequence.
    """
    if getattr(architecture.model_class, "_is_stateful", False):
        return True
    try:
        model = _small(architecture)
        with torch.no_grad():
            alone = [model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in _ROWS]
            batch = Packing(None, 0)([{"input_ids": row, "labels": row} for row in _ROWS])
            together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
    except Exception:  # whatever an architecture raises on positions that begin anew
        return True
    expected = torch.cat(alone)
    return not bool((together - expected).abs().max() <= _ROUNDING * expected.abs().max())


def _small(architecture: Architecture) -> Any:
    config = copy.deepcopy(architecture.config)
    text = config.get_text_config()
    kinds = list(getattr(text, "layer_types", None) or ["attention"])
    layers = next(number for number in range(1, len(kinds) + 1) if set(kinds[:number]) == set(kinds))
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = kinds[:layers]
    text.vocab_size = _VOCABULARY
    text.pad_token_id = None
    config._attn_implementation = architecture.attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return architecture.model_class._from_config(config, dtype=torch.float32).eval()
