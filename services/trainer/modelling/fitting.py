"""Proves that a base model's weights are those of its architecture, so that none is drawn at random when it is loaded.

The library itself loads the headers' names and shapes into a model on the meta device: its verdict covers renamed, merged and
tied weights exactly as the real loading does, which only warns about what is missing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from services.language_models.loading import without_report
from services.language_models.scoring import Unscorable, put_head, refuse_lost
from services.trainer.modelling.architecture import NO_SCORES, Architecture
from services.trainer.modelling.base_files import BaseFault
from services.trainer.modelling.weight_files import StoredTensor, equal_values, plain

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
_WRAPPERS: Mapping[str, str] = {
    "base_model.model.": "PEFT", "_orig_mod.": "torch.compile", "module.": "DistributedDataParallel",
    "_fsdp_wrapped_module.": "FSDP", "_forward_module.": "Lightning", "pretrained_model.": "TRL's value head",
}  # fmt: skip
"""What other programs write before each name when the wrapped model is saved instead of the model itself."""
_OLD_BUFFERS = frozenset({"inv_freq", "masked_bias", "position_ids", "causal_mask", "embed_positions", "rotary_emb"})
"""Last parts of names that earlier versions of the library saved, and that no model reads any more."""


def fitted(architecture: Architecture, tensors: Mapping[str, StoredTensor]) -> Any:
    """Return the model on the meta device. Raises BaseFault if a weight is missing, unknown, of another shape or type."""
    _refuse_wrapped(tensors)
    _refuse_more_layers(architecture.config, tensors)
    model, found = _loaded(architecture, tensors)
    missing, mismatched = sorted(found["missing_keys"]), sorted(found["mismatched_keys"])
    buffers = {name.rpartition(".")[2] for name, _ in model.named_buffers()} | _OLD_BUFFERS
    unknown = [name for name in sorted(found["unexpected_keys"]) if name.rpartition(".")[2] not in buffers]
    if missing or mismatched or unknown or found["error_msgs"]:
        raise _unfit(missing, mismatched, unknown, tensors)
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATING and name.rpartition(".")[2] not in buffers:
            what = f"its weight {plain(name)} in {tensor.file} has the type {tensor.dtype}, which cannot be trained"
            raise BaseFault(what, "name a base model in float32, float16 or bfloat16; quantization: nf4 makes it smaller")
    return model


def refuse_two_heads(folder: Path, model: Any, tensors: Mapping[str, StoredTensor]) -> None:
    """Raise BaseFault if config.json says that head and embeddings are one matrix, and the files contain two different ones.

    The library then computes with both and only warns; servers that follow config.json leave the head out.
    """
    if not model.config.get_text_config().tie_word_embeddings:
        return
    embeddings, head = (
        _stored(model, part, tensors) for part in (model.get_input_embeddings(), model.get_output_embeddings())
    )
    if embeddings is None or head is None or embeddings == head or equal_values(folder, embeddings, head):
        return
    what = (
        f"its config.json says that head and embeddings are one matrix (tie_word_embeddings), but its files contain the two different "
        f"ones {plain(head.name)} and {plain(embeddings.name)}"
    )
    remedy = "set tie_word_embeddings to false in its config.json if the head is its own, or remove the head from the files"
    raise BaseFault(what, remedy)


def _stored(model: Any, part: Any, tensors: Mapping[str, StoredTensor]) -> StoredTensor | None:
    """Return the weight of a part of the model among those stored, whose names may lack the beginning."""
    path = next((path for path, module in model.named_modules() if module is part), "")
    name = f"{path}.weight"
    return next((tensor for stored, tensor in tensors.items() if name == stored or name.endswith(f".{stored}")), None)


def fitted_scoring(architecture: Architecture, tensors: Mapping[str, StoredTensor]) -> Any:
    """Return the model that scores on the meta device. Raises BaseFault if one of its weights but the head would be random."""
    model, found = _loaded(architecture.scoring, tensors)
    try:
        refuse_lost(found["missing_keys"])
        put_head(model, seed=0)
    except Unscorable as unscorable:
        raise BaseFault(str(unscorable), NO_SCORES) from unscorable
    return model


def _refuse_wrapped(tensors: Mapping[str, StoredTensor]) -> None:
    first = next(iter(sorted(tensors)), "")
    for prefix, program in _WRAPPERS.items():
        if first.startswith(prefix) and all(name.startswith(prefix) for name in tensors):
            what = (
                f"the names of its weights in {tensors[first].file} begin with {prefix}, as {program} saves them, so loading "
                "it would draw its weights at random"
            )
            raise BaseFault(what, f"save the model itself with save_pretrained, or remove {prefix} from the names")


def _refuse_more_layers(config: Any, tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse before building what the weights do not have: building costs time and memory for every layer."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > len(tensors):
        what = f"its config.json describes {layers} layers, but its files contain {len(tensors)} weights"
        raise BaseFault(what, "take the config.json that belongs to the weights")


def _loaded(architecture: Architecture, tensors: Mapping[str, StoredTensor]) -> tuple[Any, Mapping[str, Any]]:
    state = {
        name: torch.empty(tensor.shape, dtype=_DTYPES.get(tensor.dtype, torch.uint8), device="meta")
        for name, tensor in tensors.items()
    }
    try:
        with without_report():
            model, found = architecture.model_class.from_pretrained(
                None, config=architecture.config, state_dict=state, device_map={"": "meta"}, dtype=torch.float32,
                attn_implementation=architecture.attention, ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
    except BaseFault:
        raise
    except Exception as error:  # merging weights of other shapes raises whatever torch raises
        architecture.empty()
        what = f"its weights do not fit the architecture that its config.json describes ({type(error).__name__})"
        raise BaseFault(what, _REMEDY) from error
    return model, found


_QUANTISED = re.compile(
    r"\.(qweight|qzeros|g_idx|SCB|weight_scale(_inv)?|weight_packed|weight\.(absmax|quant_map|quant_state\.\w+))$|_(blocks|scales)$"
)
"""Ends of names that GPTQ, AWQ, bitsandbytes, FP8, compressed-tensors and MXFP4 give to what they store beside a weight."""
_REMEDY = "take weights and config.json of the same model, saved with save_pretrained"


def _unfit(
    missing: Sequence[str],
    mismatched: Sequence[tuple[str, Sequence[int], Sequence[int]]],
    unknown: Sequence[str],
    tensors: Mapping[str, StoredTensor],
) -> BaseFault:
    def words() -> Iterator[str]:
        if missing:
            yield f"{len(missing)} weights are missing, for example {missing[0]}"
        if mismatched:
            name, stored, wanted = mismatched[0]
            yield (
                f"{len(mismatched)} have another shape, for example {name}: {_shape(stored)} instead of {_shape(wanted)}"
            )
        if unknown:
            file = tensors[unknown[0]].file if unknown[0] in tensors else "its files"
            yield f"{len(unknown)} are unknown to it, for example {plain(unknown[0])} in {file}"

    told = "; ".join(words())
    return BaseFault(f"its weights do not fit the architecture that its config.json describes: {told}", _remedy(unknown))


def _remedy(unknown: Sequence[str]) -> str:
    if any(_QUANTISED.search(name) for name in unknown):
        return "these weights are quantised, and config.json does not say how: name the unquantised base model"
    if any(name.endswith((".lora_A.weight", ".lora_B.weight")) or ".lora_A." in name for name in unknown):
        return "name the base model of the adapter whose weights these are, or merge the adapter first"
    if any(name.startswith(("v_head.", "score.", "classifier.")) for name in unknown):
        return "name the language model itself, without a head for values or classes"
    return _REMEDY


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes)) or "a scalar"
