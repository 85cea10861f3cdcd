"""A base model whose weights are not those of its architecture is refused by prepare, which names file, weight and remedy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.chassis.executor.child import UserFault
from tests.base_models import configured, dressed, prepare_job, random_model, refusal, rewritten, run_job

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 538090408\n"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def base(base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(base, tmp_path / "own"))


def sharded(base: Path) -> Path:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(base).save_pretrained(base, max_shard_size="40KB")
    (base / WEIGHTS).unlink(missing_ok=True)
    return base


@pytest.mark.parametrize(
    "prefix", ["base_model.model.", "_orig_mod.", "module.", "_fsdp_wrapped_module.", "pretrained_model."]
)
def test_names_with_the_prefix_of_a_wrapper_are_refused(tmp_path: Path, base: Path, prefix: str) -> None:
    rewritten(base, lambda weights: {prefix + name: value for name, value in weights.items()})
    reason = refusal(tmp_path, base)
    assert prefix in reason.message
    assert WEIGHTS in reason.message
    assert prefix in reason.remedy


def without(part: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def with_more(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda weights: {**weights, name: weights["model.norm.weight"].clone()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("layers.1."), "weights are missing, for example model.layers.1."),
        (without("norm.weight"), "weights are missing"),
        (without("embed_tokens"), "weights are missing"),
        (with_more("model.layers.2.input_layernorm.weight"), "1 are unknown to it"),
        (with_more("model.layers.0.self_attn.q_proj.bias"), "1 are unknown to it"),
        (with_more("v_head.summary.weight"), "1 are unknown to it"),
        (lambda weights: {**weights, "model.norm.weight": weights["model.norm.weight"][:16].clone()}, "16 instead of 32"),
        (lambda weights: {name.replace("model.", "encoder."): value for name, value in weights.items()}, "are missing"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, base: Path, change: Any, words: str) -> None:
    rewritten(base, change)
    assert words in refusal(tmp_path, base).message


@pytest.mark.parametrize(
    "part", ["qweight", "SCB", "weight_scale_inv", "weight_packed", "weight.quant_state.bitsandbytes__nf4"]
)
def test_quantised_weights_are_named_as_such_if_the_configuration_was_lost(tmp_path: Path, base: Path, part: str) -> None:
    rewritten(base, with_more(f"model.layers.0.mlp.down_proj.{part}"))
    assert "these weights are quantised" in refusal(tmp_path, base).remedy


@pytest.mark.parametrize(
    "entries", [{"num_hidden_layers": 3}, {"num_hidden_layers": 10**9}, {"hidden_size": 64}, {"vocab_size": 300}]
)
def test_a_configuration_of_another_size_is_refused(tmp_path: Path, base: Path, entries: dict[str, Any]) -> None:
    assert "config.json describes" in refusal(tmp_path, configured(base, **entries)).message


def test_buffers_that_older_libraries_saved_are_no_fault(tmp_path: Path, base: Path) -> None:
    rewritten(base, with_more("model.layers.0.self_attn.rotary_emb.inv_freq"))
    assert prepare_job(tmp_path, base).metrics["rows_train"] == 6


def test_a_head_of_its_own_beside_a_configuration_that_ties_it_is_refused(tmp_path: Path, base: Path) -> None:
    """huggingface/transformers#45127, after a merge of a trained head: servers that follow config.json leave it out."""
    embeddings = "model.embed_tokens.weight"
    rewritten(base, lambda weights: {**weights, "lm_head.weight": weights[embeddings].clone()})
    assert prepare_job(tmp_path, base).metrics["rows_train"] == 6, "an equal copy is no fault"
    rewritten(base, lambda weights: {**weights, "lm_head.weight": weights[embeddings] + 1})
    reason = refusal(tmp_path, base)
    assert "tie_word_embeddings" in reason.message
    assert "lm_head.weight" in reason.message
    assert "tie_word_embeddings to false" in reason.remedy
    assert prepare_job(tmp_path, configured(base, tie_word_embeddings=False)).metrics["rows_train"] == 6


def test_a_link_to_a_file_that_is_not_there_is_named(tmp_path: Path, base: Path) -> None:
    (base / WEIGHTS).unlink()
    (base / WEIGHTS).symlink_to("../../blobs/0")
    assert f"{WEIGHTS} is a link to a file that is not there" in refusal(tmp_path, base).message


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "uint8"])
def test_weights_of_a_type_that_cannot_be_trained_are_refused(tmp_path: Path, base: Path, dtype: str) -> None:
    import torch

    rewritten(base, lambda weights: {name: value.to(getattr(torch, dtype)) for name, value in weights.items()})
    assert "cannot be trained" in refusal(tmp_path, base).message


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_any_floating_type_are_accepted(tmp_path: Path, base: Path, dtype: str) -> None:
    import torch

    rewritten(base, lambda weights: {name: value.to(getattr(torch, dtype)) for name, value in weights.items()})
    assert prepare_job(tmp_path, base).metrics["rows_train"] == 6


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, base: Path, name: str) -> None:
    (base / name).write_text(POINTER)
    reason = refusal(tmp_path, base)
    assert f"{name} is a pointer of git-lfs" in reason.message
    assert "git lfs pull" in reason.remedy


def test_a_header_with_a_type_that_is_not_known_is_named(tmp_path: Path, base: Path) -> None:
    (base / WEIGHTS).write_bytes((base / WEIGHTS).read_bytes().replace(b'"F32"', b'"F99"', 1))
    assert "its header describes other tensors than there are" in refusal(tmp_path, base).message


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 20_000])
def test_a_file_that_ends_early_is_named(tmp_path: Path, base: Path, kept: int) -> None:
    (base / WEIGHTS).write_bytes((base / WEIGHTS).read_bytes()[:kept])
    assert WEIGHTS in refusal(tmp_path, base).message


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>Not found</html>", b"PK\x03\x04" + bytes(200), bytes(200)])
def test_a_file_that_is_no_safetensors_file_is_named(tmp_path: Path, base: Path, content: bytes) -> None:
    (base / WEIGHTS).write_bytes(content)
    assert WEIGHTS in refusal(tmp_path, base).message


def test_a_file_with_more_than_its_header_describes_is_named(tmp_path: Path, base: Path) -> None:
    (base / WEIGHTS).write_bytes((base / WEIGHTS).read_bytes() + b"more")
    assert WEIGHTS in refusal(tmp_path, base).message


def test_a_missing_shard_is_named(tmp_path: Path, base: Path) -> None:
    gone = sorted(sharded(base).glob("model-*.safetensors"))[-1]
    gone.unlink()
    assert gone.name in refusal(tmp_path, base).message


def test_a_missing_index_is_named(tmp_path: Path, base: Path) -> None:
    (sharded(base) / INDEX).unlink()
    assert INDEX in refusal(tmp_path, base).message


def test_two_checkpoints_in_one_folder_are_refused(tmp_path: Path, base: Path) -> None:
    whole = (base / WEIGHTS).read_bytes()
    (sharded(base) / WEIGHTS).write_bytes(whole)
    assert "two different checkpoints" in refusal(tmp_path, base).message


def test_shards_of_two_checkpoints_are_refused(tmp_path: Path, base: Path) -> None:
    first, second = sorted(sharded(base).glob("model-*.safetensors"))[:2]
    shutil.copyfile(first, second)
    assert "both contain the weight" in refusal(tmp_path, base).message


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "<html>"])
def test_an_index_that_is_none_is_named(tmp_path: Path, base: Path, content: str) -> None:
    (sharded(base) / INDEX).write_text(content)
    reason = refusal(tmp_path, base)
    assert INDEX in reason.message or "index of its weights" in reason.message


def test_an_index_that_looks_for_a_weight_in_the_wrong_file_is_refused(tmp_path: Path, base: Path) -> None:
    index = json.loads((sharded(base) / INDEX).read_text())
    names = sorted(index["weight_map"])
    index["weight_map"] |= dict.fromkeys(names, index["weight_map"][names[0]])
    (base / INDEX).write_text(json.dumps(index))
    assert "lacks the weight" in refusal(tmp_path, base).message


def test_a_complete_sharded_model_is_accepted(tmp_path: Path, base: Path) -> None:
    assert prepare_job(tmp_path, sharded(base)).metrics["rows_train"] == 6


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorch_model.bin", "pickle"), ("consolidated.00.pth", "pickle"), ("model.gguf", "GGUF"), ("tf_model.h5", "HDF5"),
        ("consolidated.safetensors", "not under a name"), ("adapter_model.safetensors", "not under a name"),
        ("shard-00000-model-00001-of-00002.safetensors", "distributed checkpoint"), ("notes.md", "no weights in safetensors"),
    ],
)  # fmt: skip
def test_weights_in_another_format_are_named(tmp_path: Path, base: Path, name: str, words: str) -> None:
    (base / WEIGHTS).rename(base / name)
    assert words in refusal(tmp_path, base).message


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"), ({"quant_method": "gptq", "bits": 4}, "GPTQ"),
        ({"quant_method": "awq", "bits": 4}, "AWQ"), ({"quant_method": "fp8"}, "FP8"), ({"quant_method": "mxfp4"}, "MXFP4"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"), ({"load_in_8bit": True}, "quantised already"), ({}, "quantised already"),
    ],
)  # fmt: skip
def test_a_model_that_is_quantised_already_is_refused(
    tmp_path: Path, base: Path, method: dict[str, Any], words: str
) -> None:
    reason = refusal(tmp_path, configured(base, quantization_config=method))
    assert words in reason.message
    assert "quantization: nf4" in reason.remedy


@pytest.mark.parametrize(
    "entries", [{"pad_token_id": 5000}, {"num_attention_heads": 0}, {"hidden_act": "none-such"}, {"rope_parameters": 7}]
)
def test_a_configuration_from_which_no_model_can_be_built_is_refused(
    tmp_path: Path, base: Path, entries: dict[str, Any]
) -> None:
    assert "config.json" in refusal(tmp_path, configured(base, **entries)).message


def test_a_configuration_whose_sizes_do_not_fit_each_other_is_refused(tmp_path: Path) -> None:
    few = dressed(tmp_path / "base", random_model("DeepseekV2", num_key_value_heads=2))
    found = refusal(tmp_path, few)
    assert (
        "sizes of its layers do not fit each other (hidden_size 32, num_attention_heads 4, num_key_value_heads 2"
        in found.message
    )
    assert "correct config.json" in (found.remedy or "")


@pytest.mark.parametrize("ends", ["2", [2, "0"], [True]])
def test_generation_settings_that_name_no_tokens_are_refused(tmp_path: Path, base: Path, ends: object) -> None:
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    assert "names in eos_token_id something else" in refusal(tmp_path, base).message


def test_a_token_that_ends_a_text_and_has_no_embedding_is_refused(tmp_path: Path, base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"eos_token": "<|new|>"})
    tokenizer.save_pretrained(base)
    assert "ends a text with the token 259, but the model has 259" in refusal(tmp_path, base).message


def test_a_tokenizer_without_an_end_is_answered_with_the_one_to_take(tmp_path: Path, base: Path) -> None:
    reason = refusal(tmp_path, configured(base, "tokenizer_config.json", eos_token=None))
    assert "no token that ends a text" in reason.message
    assert "tokenizer that belongs to the model" in reason.remedy


def test_the_attention_that_a_model_was_saved_with_is_not_needed(tmp_path: Path, base: Path) -> None:
    configured(base, attn_implementation="flash_attention_2", _attn_implementation="flash_attention_2")
    run_job(tmp_path, base)


def test_weights_that_are_no_numbers_are_the_base_models_fault(tmp_path: Path, base: Path) -> None:
    rewritten(base, lambda weights: {name: value / 0 for name, value in weights.items()})
    with pytest.raises(UserFault, match="not a number") as refused:
        run_job(tmp_path, base)
    assert refused.value.reasons[0].field == "base_model"


def zeros(*parts: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change of the weights whose names contain one of the parts."""
    return lambda weights: {
        name: value * 0 if any(part in name for part in parts) else value for name, value in weights.items()
    }


@pytest.mark.parametrize(
    ("parts", "named", "more"),
    [
        (["layers.1.self_attn.q_proj"], "model.layers.1.self_attn.q_proj.weight", ""),
        (["embed_tokens"], "model.embed_tokens.weight", ""),
        (["layers.1.mlp"], "model.layers.1.mlp.down_proj.weight", ", and 2 more"),
        ([""], "model.embed_tokens.weight", ", and 14 more"),
    ],
)
def test_a_matrix_of_zeros_as_a_download_leaves_it_that_broke_off_is_refused(
    tmp_path: Path, base: Path, parts: list[str], named: str, more: str
) -> None:
    rewritten(base, zeros(*parts))
    reason = refusal(tmp_path, base)
    assert f"every value of its weight {named} in {WEIGHTS} is zero{more}" in reason.message
    assert "download the file again" in reason.remedy


@pytest.mark.parametrize("part", ["mlp.down_proj", "input_layernorm"])
def test_a_layer_that_changes_nothing_and_vectors_of_zeros_are_no_fault(tmp_path: Path, base: Path, part: str) -> None:
    rewritten(base, zeros(f"layers.1.{part}"))
    assert prepare_job(tmp_path, base).metrics["rows_train"] == 6


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_byte_order_mark_is_named_as_the_cause(tmp_path: Path, base: Path, name: str, encoding: str) -> None:
    if (base / name).exists():
        (base / name).write_text((base / name).read_text(encoding="utf-8"), encoding=encoding)
    else:
        (base / name).write_text("{{ messages[0].content }}", encoding=encoding)
    reason = refusal(tmp_path, base)
    assert f"its file {name} begins with a byte order mark (UTF-" in reason.message
    assert reason.remedy == "save the file as UTF-8 without a byte order mark"
