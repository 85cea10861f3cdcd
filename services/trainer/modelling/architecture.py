"""Reads from a base model's configuration which model it is, and builds it without weights, on the meta device.

Every refusal is a BaseFault: the configuration comes with the request, so whatever the library raises on it is the request's fault.
"""

import copy
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from services.chassis.storage.sources.models import brings_code
from services.language_models.lengths import context_length
from services.language_models.loading import load_config
from services.language_models.scoring import scoring_class
from services.trainer.modelling.base_files import BaseFault
from services.trainer.modelling.text_marks import refuse_marks

_CAUSAL = "name a causal language model"
NO_SCORES = "train the reward model on another base model"


@dataclass(frozen=True)
class Architecture:
    """A causal language model of the library, with the configuration of one base model."""

    config: Any
    model_class: Any

    @property
    def context_length(self) -> int | None:
        """The most tokens that the model reads; None if it has no limit."""
        return context_length(self.config)

    def within(self, tokens: int) -> int:
        """Return so many tokens, or as many as the model reads if it reads fewer."""
        limit = self.context_length
        return tokens if limit is None else min(tokens, limit)

    @property
    def parameters(self) -> int:
        """The number of its weights. Raises BaseFault."""
        return self._sizes[0]

    @property
    def vocabulary(self) -> int:
        """The number of logits of a token. Raises BaseFault."""
        return self._sizes[1]

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        model = self.empty()
        return sum(weight.numel() for weight in model.parameters()), int(model.get_output_embeddings().weight.shape[0])

    @property
    def attention(self) -> str:
        """The attention that the library chooses if none is named: PyTorch's fused kernel where the architecture has it."""
        return "sdpa" if self.model_class._supports_sdpa else "eager"

    @property
    def scoring(self) -> "Architecture":
        """The library's model of this architecture that gives scores. Raises BaseFault if there is none."""
        found = scoring_class(self.config)
        if found is None:
            what = "the library has no model of its architecture that scores, so it cannot become a reward model"
            raise BaseFault(what, NO_SCORES)
        config = copy.deepcopy(self.config)
        config.num_labels = 1
        return Architecture(config, found)

    def empty(self) -> Any:
        """Return the model on the meta device, with shapes and without weights. Raises BaseFault."""
        try:
            with torch.device("meta"):
                return self.model_class(self.config)
        except Exception as error:  # the library's models raise whatever their layers raise
            raise _unbuildable(self.config, error) from error


def architecture_of(folder: Path) -> Architecture:
    """Read the configuration in `folder`. Raises BaseFault if it is none of a causal language model that can be trained."""
    refuse_marks(folder)
    try:
        config = load_config(folder)
    except Exception as error:  # the library raises whatever its parsers raise
        if brings_code(folder):
            what = "it needs its own code, which is never run"
            raise BaseFault(what, "name a model whose architecture is part of transformers") from error
        if _has_unknown_type(folder):
            what = "its config.json names a type of model (model_type) that this version of transformers does not know"
            raise BaseFault(what, "name a model whose architecture is part of transformers") from error
        what = f"its config.json cannot be read ({type(error).__name__})"
        raise BaseFault(what, "name a folder that transformers can load") from error
    _refuse_kind(config)
    _refuse_quantised(config)
    if getattr(config, "transformers_weights", None) is not None:
        raise BaseFault("its config.json names the file of the weights (transformers_weights)", "remove that entry")
    model_class = _class_of(config)
    if "past_key_values" not in signature(model_class.forward).parameters:
        raise BaseFault("its architecture keeps no cache of keys and values, so it cannot be sampled or evaluated", _CAUSAL)
    if (own := _cache_of_its_own(model_class)) is not None:
        raise BaseFault(
            f"its architecture works only with a cache of its own ({own}), which cannot be sampled from", _CAUSAL
        )
    return Architecture(config, model_class)


def _has_unknown_type(folder: Path) -> bool:
    """Whether a configuration names a type of model that the library does not have."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    try:
        named = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
    return isinstance(named, str) and named not in CONFIG_MAPPING_NAMES


def _cache_of_its_own(model_class: Any) -> str | None:
    """Return the name of the cache that the architecture defines in place of the library's, which all others work with."""
    from transformers import Cache

    defined = vars(sys.modules[model_class.__module__]).values()
    own = [kind for kind in defined if isinstance(kind, type) and issubclass(kind, Cache)]
    return next((kind.__name__ for kind in own if kind.__module__ == model_class.__module__), None)


def _refuse_kind(config: Any) -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    known = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise BaseFault("it is a model with encoder and decoder, whose answers are not the end of one text", _CAUSAL)
    if known not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BaseFault("models of its type do not generate text", _CAUSAL)
    text = config.get_text_config()
    if known in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise BaseFault("it is an encoder, which reads the answer while it predicts it", _CAUSAL)
    bidirectional = getattr(text, "use_bidirectional_attention", None) not in (None, False, "vision")
    if bidirectional or getattr(text, "is_causal", True) is False:
        raise BaseFault("its attention looks ahead: it reads the answer while it predicts it", _CAUSAL)


def _refuse_quantised(config: Any) -> None:
    found = getattr(config, "quantization_config", None) or getattr(config.get_text_config(), "quantization_config", None)
    if found is None:
        return
    method = found.get("quant_method") if isinstance(found, Mapping) else getattr(found, "quant_method", None)
    how = _METHODS.get(str(getattr(method, "value", method)), "")
    remedy = (
        "name the unquantised base model, with quantization: nf4 if it does not fit into memory; if its weights are not "
        "quantised, remove quantization_config from its config.json"
    )
    raise BaseFault(f"it is quantised already ({how}quantization_config in its config.json)", remedy)


_METHODS = {
    name: f"{shown}, "
    for name, shown in (
        ("bitsandbytes", "bitsandbytes"), ("gptq", "GPTQ"), ("awq", "AWQ"), ("fp8", "FP8"), ("fbgemm_fp8", "FP8"),
        ("mxfp4", "MXFP4"), ("compressed-tensors", "compressed-tensors"), ("aqlm", "AQLM"), ("hqq", "HQQ"), ("eetq", "EETQ"),
        ("quanto", "Quanto"), ("torchao", "torchao"), ("bitnet", "BitNet"), ("higgs", "HIGGS"), ("vptq", "VPTQ"),
    )
}  # fmt: skip


def _class_of(config: Any) -> Any:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        found = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except (KeyError, ImportError) as error:
        raise BaseFault("models of its type do not generate text", _CAUSAL) from error
    if not isinstance(found, tuple):
        return found
    named = set(config.architectures or ())
    return next((candidate for candidate in found if candidate.__name__ in named), found[0])


def _unbuildable(config: Any, error: Exception) -> BaseFault:
    text = config.get_text_config()
    pad, size = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if isinstance(pad, int) and isinstance(size, int) and not -size <= pad < size:
        what = f"its config.json names the padding token {pad}, but its vocabulary has {size} tokens"
        return BaseFault(what, "set pad_token_id in its config.json to a token below that number, or to null")
    what = f"its config.json describes a model that cannot be built ({type(error).__name__})"
    return BaseFault(what, "correct config.json, or take the one that belongs to the weights")
