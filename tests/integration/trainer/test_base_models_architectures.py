"""Models of many architectures are trained and evaluated as the library builds them; what is no causal model is refused in words."""

from pathlib import Path
from typing import Any

import pytest

from tests.base_models import configured, dressed, random_model, refusal, run_job

WITHOUT_SDPA: dict[str, dict[str, Any]] = {
    "Gemma2": {"head_dim": 8}, "GPTJ": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 512},
    "Bloom": {"n_layer": 2, "n_head": 4}, "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
    "GPTNeo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "GptOss": {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2},
    "CodeGen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 512},
}  # fmt: skip
WITH_CONV1D: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
}
OTHERS: dict[str, dict[str, Any]] = {
    "Qwen3Next": {
        "num_hidden_layers": 4,
        "head_dim": 8,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 32,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "Falcon": {},
    "Qwen2": {},
    "Mixtral": {"num_local_experts": 2},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
}
KINDS: dict[str, dict[str, Any]] = {**WITHOUT_SDPA, **WITH_CONV1D, **OTHERS}


@pytest.mark.parametrize("architecture", KINDS)
def test_a_job_trains_and_evaluates_it(tmp_path: Path, architecture: str) -> None:
    base = dressed(tmp_path / "base", random_model(architecture, **KINDS[architecture]))
    trained, evaluated = run_job(tmp_path, base)
    assert trained.metrics["trainable_parameters"] > 0
    assert evaluated.metrics["loss"] > 0


@pytest.mark.parametrize("architecture", ["Bert", "Roberta", "Electra", "XLMRoberta"])
def test_an_encoder_is_refused(tmp_path: Path, architecture: str) -> None:
    base = dressed(tmp_path / "base", random_model(architecture, embedding_size=32))
    assert "it is an encoder" in refusal(tmp_path, base).message


@pytest.mark.parametrize(("architecture", "sizes"), [("Bart", {"d_model": 32}), ("Pegasus", {"d_model": 32}), ("T5", {})])
def test_an_encoder_with_decoder_is_refused(tmp_path: Path, architecture: str, sizes: dict[str, Any]) -> None:
    import transformers

    config = getattr(transformers, f"{architecture}Config")(**sizes)
    base = dressed(tmp_path / "base", random_model("Llama"))
    config.save_pretrained(base)
    assert "encoder and decoder" in refusal(tmp_path, base).message


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("Gemma3Text", head_dim=8))
    configured(base, use_bidirectional_attention=True)
    assert "looks ahead" in refusal(tmp_path, base).message


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("Llama"))
    configured(base, model_type="of-its-own", auto_map={"AutoModelForCausalLM": "modeling.Own"})
    assert "own code, which is never run" in refusal(tmp_path, base).message


def test_a_type_of_model_that_the_library_does_not_know_is_named(tmp_path: Path) -> None:
    other = dressed(tmp_path / "other", random_model("Llama"))
    assert "(model_type) that this version" in refusal(tmp_path, configured(other, model_type="of-the-future")).message


def test_a_model_whose_cache_is_its_own_is_refused(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("MiniMax", num_local_experts=2, head_dim=8))
    assert "a cache of its own (MiniMaxCache)" in refusal(tmp_path, base).message


def test_a_model_without_a_cache_of_keys_and_values_is_refused(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("Mamba", state_size=4))
    assert "keeps no cache" in refusal(tmp_path, base).message
