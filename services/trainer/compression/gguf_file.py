"""Writes a model as a GGUF file, for llama.cpp and what is built on it: architectures like Llama, Qwen 2 and Qwen 3."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault
from services.language_models.lengths import context_length
from services.trainer.compression.gguf_tokenizer import add_tokenizer, rule_of
from services.trainer.compression.made import Compression
from services.trainer.modelling.base_files import BaseFault
from services.trainer.modelling.stored_model import GGUF

_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Names in GGUF by those in transformers, of models that differ only in what is handled here."""
_PERMUTED = (".q_proj.", ".k_proj.")


def write_gguf(work: Compression) -> None:
    """Write the model, its tokenizer and its chat template into one file. Matrices get the asked type, vectors stay fp32.

    A matrix whose rows are no whole blocks of q8_0 is stored as f16.
    """
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, get_tensor_name_map

    model = work.whole()
    config = model.config
    name = _refuse_architecture(config)
    architecture = next(arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == name)
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    writer = GGUFWriter(work.folder / GGUF, name)
    try:
        _add_sizes(writer, config, work.settings.gguf_type)
        try:
            add_tokenizer(writer, work.texts, config.vocab_size)
        except BaseFault as fault:
            raise _refused(fault.message, fault.remedy) from fault
        for key, weight in _weights(model).items():
            new = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if new is None:
                raise _refused(f"it has the weight {key}, which the architecture {name} of GGUF does not know")
            array = _permuted(weight, key, config) if name == "llama" else weight.numpy()
            _add(writer, new, array, work.settings.gguf_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    config.save_pretrained(str(work.folder))


def refuse_gguf(config: Any, folder: Path) -> None:
    """Raise UserFault if a model of this configuration, with the tokenizer in `folder`, cannot be written as GGUF."""
    _refuse_architecture(config)
    try:
        rule_of(folder)
    except BaseFault as fault:
        raise _refused(fault.message, fault.remedy) from fault


def _refuse_architecture(config: Any) -> str:
    """Return the name of the architecture in GGUF. Raises UserFault if there is none for what the configuration says."""
    name = _ARCHITECTURES.get(config.model_type)
    if name is None:
        raise _refused(f"its architecture is {config.model_type}, and only {', '.join(_ARCHITECTURES)} can be written")
    rope = getattr(config, "rope_parameters", None) or {}
    read_as = {"llama": _head(config), "qwen2": config.hidden_size // config.num_attention_heads, "qwen3": 128}[name]
    odd = {
        "a scaling of positions": rope.get("rope_type", "default") != "default",
        "attention within a window": bool(getattr(config, "sliding_window", None)) and _windows(config),
        "biases": name != "qwen2" and (getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)),
        f"heads of another width than {read_as}": _head(config) != read_as,  # transformers could not read it back
        "another activation than SiLU": getattr(config, "hidden_act", "silu") != "silu",
    }
    if found := [what for what, has in odd.items() if has]:
        raise _refused(f"it has {found[0]}, which is not written to GGUF")
    return name


def _head(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _windows(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    return "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)


def _add_sizes(writer: Any, config: Any, kind: str) -> None:
    from gguf import LlamaFileType

    head = _head(config)
    types = {
        "f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16,
        "bf16": LlamaFileType.MOSTLY_BF16, "q8_0": LlamaFileType.MOSTLY_Q8_0,
    }  # fmt: skip
    writer.add_name(config.model_type)
    writer.add_file_type(types[kind])
    writer.add_quantization_version(2)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base((config.rope_parameters or {}).get("rope_theta", 10_000.0))


def _weights(model: Any) -> Mapping[str, torch.Tensor]:
    """Return the weights in fp32; a head that is one tensor with the embeddings is not repeated."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    state = model.state_dict()
    return {key: weight.float().cpu() for key, weight in state.items() if not (tied and key == "lm_head.weight")}


def _permuted(weight: torch.Tensor, key: str, config: Any) -> np.ndarray:
    """Return query and key weights in the order that llama.cpp rotates: pairs of neighbours instead of halves of a head."""
    if not any(part in key for part in _PERMUTED):
        return weight.numpy()
    heads = config.num_attention_heads if ".q_proj." in key else config.num_key_value_heads
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape).contiguous().numpy()


def _add(writer: Any, name: str, array: np.ndarray, kind: str) -> None:
    from gguf import GGMLQuantizationType, QuantError
    from gguf.quants import quantize

    wanted = GGMLQuantizationType[kind.upper()] if array.ndim > 1 else GGMLQuantizationType.F32
    try:
        stored = quantize(array, wanted)
    except QuantError:
        wanted = GGMLQuantizationType.F16
        stored = quantize(array, wanted)
    writer.add_tensor(name, stored, raw_dtype=wanted)


def _refused(why: str, remedy: str = "register the merged model, and convert it with tools of llama.cpp") -> UserFault:
    message = f"this model cannot be written as GGUF: {why}"
    return UserFault(Reason(field="compression.method", value="'gguf'", message=message, remedy=remedy))
