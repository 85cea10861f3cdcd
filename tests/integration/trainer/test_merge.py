"""A merged model is a whole one: transformers loads it from its folder alone, and it computes what base and adapter compute."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from services.chassis.executor.child import Stopping, UserFault
from tests.base_models import configured, dressed, random_model
from tests.compression import compressed, logits_by_peft, logits_by_transformers, made_adapter
from tests.tiny_model import build
from tests.trainer import context_of

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "some layers": {"targets": ("q_proj", "down_proj")},
    "rsLoRA": {"rslora": True},
    "DoRA": {"dora": True},
    "whole modules": {"modules_to_save": ("norm",)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_merged_model_computes_what_base_and_adapter_compute(tmp_path: Path, base: Path, name: str) -> None:
    import torch

    adapter = made_adapter(tmp_path, base, **OPTIONS[name])
    made = compressed(tmp_path, base, {"adapter": adapter})
    folder = made.outputs["model"].uri
    wanted = logits_by_peft(base, adapter)
    assert torch.allclose(logits_by_transformers(folder), wanted, atol=1e-4)
    assert not torch.allclose(logits_by_transformers(str(base)), wanted, atol=1e-2)
    difference = made.metrics["logits_difference"]
    assert difference is not None
    assert difference <= 1e-4
    files = {file.name for file in Path(folder).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "training.json"} <= files
    assert not any(name.startswith("adapter_") for name in files)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_an_adapter_of_a_4_bit_base_is_merged_into_the_base_in_full_precision(tmp_path: Path) -> None:
    import torch

    base = build(tmp_path / "base", hidden=64)
    adapter = made_adapter(tmp_path, base, scale=0.1, quantization="nf4")
    folder = compressed(tmp_path, base, {"adapter": adapter}).outputs["model"].uri
    assert torch.allclose(logits_by_transformers(folder), logits_by_peft(base, adapter), atol=1e-4)
    assert "quantization_config" not in json.loads((Path(folder) / "config.json").read_text())


def test_embeddings_and_head_of_their_own_are_merged_as_they_are(tmp_path: Path) -> None:
    import torch

    base = dressed(tmp_path / "base", random_model("Llama", tie_word_embeddings=False))
    adapter = made_adapter(tmp_path, base, scale=0.1, modules_to_save=("embed_tokens", "lm_head"))
    folder = compressed(tmp_path, base, {"adapter": adapter}).outputs["model"].uri
    assert torch.allclose(logits_by_transformers(folder), logits_by_peft(base, adapter), atol=1e-4)


def test_a_model_with_conv1d_and_a_tied_head_is_merged(tmp_path: Path) -> None:
    import torch

    base = dressed(tmp_path / "base", random_model("GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=512))
    adapter = made_adapter(tmp_path, base)
    folder = compressed(tmp_path, base, {"adapter": adapter}).outputs["model"].uri
    assert torch.allclose(logits_by_transformers(folder), logits_by_peft(base, adapter), atol=1e-4)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_weights_are_stored_as_asked_and_differ_by_their_rounding_only(tmp_path: Path, base: Path, dtype: str) -> None:
    from safetensors.torch import load_file

    made = compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base)}, dtype=dtype)
    folder = Path(made.outputs["model"].uri)
    weights = load_file(folder / "model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {made_of(dtype)}
    assert made.facts["precision"] == made_of(dtype).removeprefix("torch.")
    assert json.loads((folder / "config.json").read_text())["dtype"] == made_of(dtype).removeprefix("torch.")
    difference = made.metrics["logits_difference"]
    assert difference is not None
    assert 1e-4 < difference < 5e-2


def made_of(dtype: str) -> str:
    return {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[dtype]


def test_without_a_type_the_base_models_own_is_kept(tmp_path: Path, base: Path) -> None:
    half = dressed(tmp_path / "half", random_model("Llama").bfloat16())
    made = compressed(tmp_path, half, {"adapter": made_adapter(tmp_path, half)})
    assert made.facts["precision"] == "bfloat16"


def test_a_difference_beyond_the_tolerance_fails_the_step_in_words(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserFault, match=r"compression\.tolerance") as caught:
        compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base)}, dtype="bf16", tolerance=1e-6)
    assert "compression.dtype" in caught.value.reasons[0].remedy
    assert not any((tmp_path / "artifacts").rglob("config.json"))


def test_weights_that_are_too_large_for_fp16_are_refused_in_words(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserFault, match=r"too large for float16"):
        compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base, scale=500.0)}, dtype="fp16")


def test_weights_that_are_no_numbers_are_refused_in_words(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserFault, match="NaN"):
        compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base, scale=float("nan"))})


def test_generation_settings_are_kept_even_if_the_library_would_not_save_them(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("Llama"))
    configured(base, "generation_config.json", temperature=0.7, top_p=0.5, do_sample=False, eos_token_id=[2, 5])
    folder = Path(compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base)}).outputs["model"].uri)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 5]


def test_an_adapter_of_another_base_is_refused_before_anything_is_written(tmp_path: Path, base: Path) -> None:
    adapter = made_adapter(tmp_path, build(tmp_path / "wider", hidden=64))
    with pytest.raises(UserFault, match="does not fit the base model"):
        compressed(tmp_path, base, {"adapter": adapter})


def test_a_merge_that_is_asked_to_stop_stores_nothing(tmp_path: Path, base: Path) -> None:
    from schemas.steps import CompressSettings
    from services.trainer.steps.compress import compress

    adapter = made_adapter(tmp_path, base)
    context = context_of(tmp_path, CompressSettings(base_model=str(base)), {"adapter": adapter})
    context.stop()
    with pytest.raises(Stopping):
        compress(context)
    assert not any((tmp_path / "artifacts").rglob("config.json"))


def test_a_merge_that_computes_something_else_is_refused_whatever_is_tolerated(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.trainer.steps import loading

    def halved(*arguments: Any) -> Any:
        model = load_for_inference(*arguments)
        model.model.norm.weight.data *= 0.5
        return model

    from services.trainer.modelling.adapter import load_for_inference

    monkeypatch.setattr(loading, "load_for_inference", halved)
    with pytest.raises(UserFault, match="something else than base model and adapter"):
        compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base)}, dtype="bf16", tolerance=1.0)
