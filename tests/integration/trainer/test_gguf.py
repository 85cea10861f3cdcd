"""A GGUF file is read back by libraries that did not write it, as the same model with the same tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.recipes.compression import CompressionSettings
from services.chassis.executor.child import UserFault
from tests.base_models import configured, dressed, random_model, refusal
from tests.compression import compressed, logits_by_peft, logits_of, made_adapter

GGUF = CompressionSettings(method="gguf")


def logits_of_file(folder: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32)
    return logits_of(loaded.eval())


def fields_of(folder: str) -> dict[str, Any]:
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(Path(folder) / "model.gguf").fields.items()}


@pytest.mark.parametrize(("architecture", "head"), [("Llama", 16), ("Qwen2", 8), ("Qwen3", 128)])
def test_the_file_is_read_back_as_the_model_with_its_adapter(tmp_path: Path, architecture: str, head: int) -> None:
    import torch

    base = dressed(tmp_path / "base", random_model(architecture, vocab_size=300, head_dim=head))
    adapter = made_adapter(tmp_path, base, scale=0.1)
    made = compressed(tmp_path, base, {"adapter": adapter}, method="gguf", gguf_type="f32")
    folder = made.outputs["model"].uri
    assert torch.allclose(logits_of_file(folder), logits_by_peft(base, adapter), atol=1e-4)
    assert made.metrics["tokens_per_second"] is None
    assert made.facts["precision"] == "f32"


def test_the_tokenizer_and_the_chat_template_are_in_the_file(tmp_path: Path, base: Path) -> None:
    from gguf import TokenType
    from transformers import AutoTokenizer

    fields = fields_of(
        compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base)}, method="gguf").outputs["model"].uri
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    vocabulary = tokenizer.get_vocab()
    assert fields["tokenizer.ggml.tokens"] == sorted(vocabulary, key=vocabulary.__getitem__)
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template
    kinds = fields["tokenizer.ggml.token_type"]
    assert [kinds[vocabulary[token]] for token in ("<|im_end|>", "a")] == [TokenType.CONTROL, TokenType.NORMAL]
    assert fields["general.architecture"] == "llama"


def test_matrices_are_quantised_in_blocks_and_vectors_are_not(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    from gguf import GGUFReader

    made = compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base), "dataset": dataset}, method="gguf")
    read = GGUFReader(Path(made.outputs["model"].uri) / "model.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert {kind for name, kind in kinds.items() if "norm" not in name} == {"Q8_0"}
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}
    metrics: Any = made.metrics
    assert metrics["size_ratio"] < 0.8
    assert abs(metrics["loss_difference"]) < 0.1


def test_rows_that_are_no_whole_blocks_stay_f16(tmp_path: Path) -> None:
    from gguf import GGUFReader

    base = dressed(tmp_path / "base", random_model("Llama", vocab_size=259, intermediate_size=40))
    made = compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base)}, method="gguf")
    read = GGUFReader(Path(made.outputs["model"].uri) / "model.gguf")
    assert {t.tensor_type.name for t in read.tensors if "ffn_down" in t.name} == {"F16"}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"attention_bias": True}, "biases"), ({"hidden_act": "gelu"}, "activation"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "scaling"),
    ],
    ids=["biases", "activation", "scaling"],
)  # fmt: skip
def test_what_the_format_would_lose_is_refused(tmp_path: Path, entries: dict[str, Any], said: str) -> None:
    base = dressed(tmp_path / "base", random_model("Llama", vocab_size=259, **entries))
    reason = refusal(tmp_path, base, compressions=(GGUF,))
    assert (reason.field, said in reason.message) == ("compression.method", True)


def test_an_architecture_that_is_not_written_is_refused_by_prepare(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=512))
    assert "gpt2" in refusal(tmp_path, base, compressions=(GGUF,)).message


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}}, "gpt-2"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, None),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}]}},
            "smollm",
        ),
        ({"pre_tokenizer": {"type": "Metaspace"}}, None),
        ({"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "ByteLevel", "use_regex": True}}, None),
    ],
    ids=["gpt-2", "prefix", "smollm", "metaspace", "lowercase"],
)  # fmt: skip
def test_a_tokenizer_is_written_only_with_a_rule_that_llama_cpp_knows(
    tmp_path: Path, base: Path, entries: dict[str, Any], rule: str | None
) -> None:
    from services.trainer.compression.gguf_tokenizer import rule_of
    from services.trainer.modelling.base_files import BaseFault

    model = json.loads((base / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").write_text((base / "tokenizer.json").read_text())
    configured(tmp_path, "tokenizer.json", model={**model, "merges": [["a", "b"]]}, **entries)
    if rule:
        assert rule_of(tmp_path) == rule
    else:
        with pytest.raises(BaseFault, match="cannot be written to GGUF"):
            rule_of(tmp_path)


def test_a_file_that_computes_something_else_is_not_stored(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with weights in the wrong order, which no reader notices."""
    from services.trainer.compression import gguf_file

    monkeypatch.setattr(gguf_file, "_permuted", lambda weight, _key, _config: weight.numpy())
    with pytest.raises(UserFault, match="logits of the stored model differ"):
        compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base)}, method="gguf")
