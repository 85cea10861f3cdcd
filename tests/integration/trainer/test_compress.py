"""A compressed model is really smaller, says so in its configuration, loads by itself, and is measured against its parent."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.lines import Message
from schemas.recipes.compression import CompressionSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.steps import EvaluateSettings
from services.chassis.executor.child import UserFault
from tests.base_models import dressed, random_model, refusal
from tests.compression import compressed, logits_by_transformers, made_adapter
from tests.tiny_model import build
from tests.trainer import context_of

EVALUATION = EvaluationSettings(metrics=("loss",), max_new_tokens=3, samples=1, precision="fp32")


def evaluated(home: Path, base: Path, **inputs: ArtifactRef) -> Any:
    from services.trainer.steps.evaluate import evaluate

    return evaluate(context_of(home, EvaluateSettings(base_model=str(base), evaluation=EVALUATION), inputs)).metrics


def config_of(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    return found


def test_an_int8_model_is_smaller_loads_by_itself_and_is_evaluated_like_its_parent(
    tmp_path: Path, dataset: ArtifactRef
) -> None:
    base = build(tmp_path / "base", hidden=64)
    adapter = made_adapter(tmp_path, base, scale=0.05)
    made = compressed(tmp_path, base, {"adapter": adapter, "dataset": dataset}, method="int8", dtype="bf16")
    folder = made.outputs["model"].uri
    metrics: Any = made.metrics
    assert 0 < metrics["logits_difference"] < 0.1
    assert metrics["size_ratio"] < 0.5
    assert abs(metrics["loss_difference"]) < 0.1
    assert metrics["parameters"] < metrics["parent_parameters"]
    assert metrics["speed_ratio"] == pytest.approx(metrics["tokens_per_second"] / metrics["parent_tokens_per_second"])
    assert config_of(folder)["quantization_config"]["load_in_8bit"] is True
    assert logits_by_transformers(folder).isfinite().all()
    of_parent, of_made = evaluated(tmp_path, base, dataset=dataset, adapter=adapter), evaluated(
        tmp_path, base, dataset=dataset, model=made.outputs["model"]
    )  # fmt: skip
    assert of_made["loss"] == pytest.approx(of_parent["loss"], abs=0.1)


def test_a_model_with_biases_is_quantised_and_computes_in_the_type_that_it_was_stored_in(
    tmp_path: Path, dataset: ArtifactRef
) -> None:
    base = dressed(tmp_path / "base", random_model("GPT2", hidden_size=64))
    made = compressed(tmp_path, base, {"dataset": dataset}, method="int8")
    of_made: Any = evaluated(tmp_path, base, dataset=dataset, model=made.outputs["model"])
    metrics: Any = made.metrics
    assert 0 < metrics["logits_difference"] < 0.1
    assert of_made["loss"] > 0


def test_a_merged_model_is_evaluated_like_its_adapter(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    adapter = made_adapter(tmp_path, base, scale=0.1)
    made = compressed(tmp_path, base, {"adapter": adapter, "dataset": dataset})
    of_adapter, of_model = evaluated(tmp_path, base, dataset=dataset, adapter=adapter), evaluated(
        tmp_path, base, dataset=dataset, model=made.outputs["model"]
    )  # fmt: skip
    assert of_model["loss"] == pytest.approx(of_adapter["loss"], abs=1e-4)
    assert made.metrics["loss_difference"] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("what", "share", "entries"),
    [
        ("channels", 0.25, {"intermediate_size": 48}),
        ("heads", 0.5, {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "hidden_size": 32}),
        ("layers", 0.5, {"num_hidden_layers": 1}),
    ],
)
def test_what_is_pruned_is_gone_and_the_rest_computes_on(
    tmp_path: Path, base: Path, dataset: ArtifactRef, what: str, share: float, entries: dict[str, int]
) -> None:
    made = compressed(tmp_path, base, {"dataset": dataset}, method="prune", prune={"what": what, "share": share})
    folder = made.outputs["model"].uri
    assert entries.items() <= config_of(folder).items()
    metrics: Any = made.metrics
    assert metrics["parameters"] < metrics["parent_parameters"]
    assert metrics["size_ratio"] < 1
    assert logits_by_transformers(folder).isfinite().all()
    assert evaluated(tmp_path, base, dataset=dataset, model=made.outputs["model"])["loss"] > 0


def test_what_matters_least_is_pruned(tmp_path: Path) -> None:
    """Channels, heads and layers that do nothing can go without a difference."""
    import torch

    model = random_model("Llama", tie_word_embeddings=True)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[:, [3, 17, 40]] = 0
            layer.self_attn.o_proj.weight[:, 16:] = 0
    base = dressed(tmp_path / "base", model)
    adapter = made_adapter(tmp_path, base, scale=0.0)
    for what, share in (("channels", 3 / 64), ("heads", 0.5)):
        made = compressed(tmp_path, base, {"adapter": adapter}, method="prune", prune={"what": what, "share": share})
        assert torch.allclose(
            logits_by_transformers(made.outputs["model"].uri), logits_by_transformers(str(base)), atol=1e-5
        )
        assert made.metrics["logits_difference"] == pytest.approx(0, abs=1e-5)


def test_magnitude_pruning_sets_the_smallest_weights_of_each_layer_to_zero(tmp_path: Path, base: Path) -> None:
    from safetensors.torch import load_file

    adapter = made_adapter(tmp_path, base)
    made = compressed(tmp_path, base, {"adapter": adapter}, method="prune", prune={"what": "weights", "share": 0.5})
    weights = load_file(Path(made.outputs["model"].uri) / "model.safetensors")
    shares = {name: float((weight == 0).float().mean()) for name, weight in weights.items()}
    assert {share for name, share in shares.items() if "_proj" in name} == {0.5}
    assert max(share for name, share in shares.items() if "_proj" not in name) < 0.01  # the padding token's embedding


def test_an_architecture_with_nothing_to_prune_is_refused_by_prepare(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=512))
    reason = refusal(tmp_path, base, compressions=(CompressionSettings(method="prune"),))
    assert (reason.field, reason.value) == ("compression.prune.what", "'channels'")


def test_a_model_of_one_layer_cannot_lose_it(tmp_path: Path) -> None:
    base = build(tmp_path / "base", layers=1)
    settings = CompressionSettings.model_validate({"method": "prune", "prune": {"what": "layers"}})
    assert "only one of them" in refusal(tmp_path, base, compressions=(settings,)).message


def test_a_pruned_model_is_trained_and_merged_again(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    from schemas.recipes.sft import TrainingSettings
    from schemas.steps import TrainSettings
    from services.trainer.steps.train import train

    pruned = compressed(tmp_path, base, {"dataset": dataset}, method="prune").outputs["model"]
    training = TrainingSettings.model_validate({
        "precision": "fp32", "max_length": 128, "optimiser": {"steps": 12, "batch_size": 4, "learning_rate": 1e-2},
    })  # fmt: skip
    settings = TrainSettings(base_model=str(base), training=training)
    adapter = train(context_of(tmp_path, settings, {"dataset": dataset, "model": pruned})).outputs["adapter"]
    with pytest.raises(UserFault, match="other files"):
        compressed(tmp_path, base, {"adapter": adapter})
    merged = compressed(tmp_path, base, {"adapter": adapter, "model": pruned, "dataset": dataset})
    folder = merged.outputs["model"].uri
    assert config_of(folder)["intermediate_size"] == 48
    losses = [evaluated(tmp_path, base, dataset=dataset, model=ref)["loss"] for ref in (pruned, merged.outputs["model"])]
    assert losses[1] < losses[0]
    recorded = json.loads((Path(folder) / "training.json").read_text())
    assert recorded["method"] == "sft"
    assert recorded["base_model_sha256"] == pruned.sha256


@pytest.mark.parametrize(
    "compression", [{"method": "merge"}, {"method": "int8"}, {"method": "prune"}, {"method": "gguf", "gguf_type": "f32"}]
)
def test_a_compressed_model_answers_a_person_from_its_folder_alone(
    tmp_path: Path, base: Path, compression: dict[str, Any]
) -> None:
    from services.trainer.answer import answer
    from services.trainer.modelling.four_bits import without_bitsandbytes

    made = compressed(tmp_path, base, {"adapter": made_adapter(tmp_path, base)}, **compression)
    folder = Path(made.outputs["model"].uri)
    without_bitsandbytes()
    assert answer(None, folder, [Message(role="user", content="hello")], 8)
