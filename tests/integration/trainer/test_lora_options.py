"""Each option of a LoRA adapter is trained, stored, resumed and served as it says, or refused by prepare in words."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.kto import KtoSettings
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import Stopping, UserFault
from services.language_models.adapters import ForeignOption, stored_lora
from services.trainer.modelling.layers import linear_layers
from tests.base_models import dressed, prepare_job, random_model, refusal, run_job
from tests.trainer import context_of

OPTIONS: dict[str, dict[str, Any]] = {
    "named targets": {"targets": ["q_proj", "v_proj"]},
    "a pattern": {"targets": ["model.layers.1.*_proj"]},
    "one whole name": {"targets": ["model.layers.0.mlp.down_proj"]},
    "whole modules": {"modules_to_save": ["norm"]},
    "rsLoRA": {"rslora": True},
    "DoRA": {"dora": True},
    "PiSSA": {"initialisation": "pissa", "rank": 4},
    "PiSSA and rsLoRA": {"initialisation": "pissa", "rank": 4, "rslora": True, "alpha": 7},
    "PiSSA and whole modules": {"initialisation": "pissa", "rank": 4, "modules_to_save": ["norm"]},
}


def settings_of(lora: dict[str, Any], **more: Any) -> TrainingSettings:
    return TrainingSettings.model_validate({
        "precision": "fp32", "max_length": 128, "checkpoint_steps": 1, "lora": lora,
        "optimiser": OptimiserSettings(steps=4, batch_size=2, learning_rate=1e-2), **more,
    })  # fmt: skip


def train_in(home: Path, base: Path, data: Any, settings: TrainingSettings, stop_after: int | None = None) -> Any:
    from services.trainer.steps.train import train

    context = context_of(home, TrainSettings(base_model=str(base), training=settings), {"dataset": data})
    if stop_after is not None:
        progress = context.progress

        def stopping(done: int, *arguments: Any, **keywords: Any) -> None:
            progress(done, *arguments, **keywords)
            if done >= stop_after:
                context.stop()

        context.progress = stopping  # type: ignore[method-assign]
    return train(context)


def logits_of(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([[7, 20, 31, 44]])).logits


@pytest.mark.parametrize("name", OPTIONS)
def test_the_served_model_is_the_trained_one(
    tmp_path: Path, base: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from peft import PeftModel

    from services.trainer.engine import training as engine
    from services.trainer.modelling.adapter import load_for_inference
    from services.trainer.modelling.base import load_base

    kept: list[Any] = []
    original = engine.train

    def keeping(*arguments: Any, **keywords: Any) -> Any:
        kept.append(original(*arguments, **keywords))
        return kept[-1]

    monkeypatch.setattr(engine, "train", keeping)
    data = prepare_job(tmp_path, base, training=settings_of(OPTIONS[name])).outputs["dataset"]
    folder = Path(train_in(tmp_path, base, data, settings_of(OPTIONS[name])).outputs["adapter"].uri)
    trained = logits_of(kept[0].model.eval())
    device = torch.device("cpu")
    served = load_for_inference(base, folder, torch.float32, device)
    theirs = PeftModel.from_pretrained(load_base(base, torch.float32, device), folder).eval()
    assert torch.allclose(logits_of(served), trained, atol=1e-4)
    assert torch.allclose(logits_of(theirs), trained, atol=1e-4)
    assert not torch.allclose(trained, logits_of(load_base(base, torch.float32, device)), atol=1e-3)
    assert "pissa" not in (folder / "adapter_config.json").read_text()


@pytest.mark.parametrize("name", ["DoRA", "PiSSA", "whole modules"])
def test_a_stopped_run_resumes_to_the_same_adapter(tmp_path: Path, base: Path, name: str) -> None:
    from safetensors.torch import load_file

    data = prepare_job(tmp_path, base).outputs["dataset"]
    whole = train_in(tmp_path / "whole", base, data, settings_of(OPTIONS[name])).outputs["adapter"].uri
    with pytest.raises(Stopping):
        train_in(tmp_path / "parts", base, data, settings_of(OPTIONS[name]), stop_after=2)
    resumed = train_in(tmp_path / "parts", base, data, settings_of(OPTIONS[name])).outputs["adapter"].uri
    first, second = (load_file(Path(uri) / "adapter_model.safetensors") for uri in (whole, resumed))
    assert first.keys() == second.keys()
    assert all(first[key].equal(second[key]) for key in first)


def test_only_the_named_layers_get_an_adapter(tmp_path: Path, base: Path) -> None:
    from safetensors.torch import load_file

    data = prepare_job(tmp_path, base).outputs["dataset"]
    made = train_in(tmp_path, base, data, settings_of(OPTIONS["a pattern"])).outputs["adapter"].uri
    names = load_file(Path(made) / "adapter_model.safetensors")
    assert names
    assert all(".layers.1." in name for name in names)


def test_dora_and_whole_modules_train_a_model_with_conv1d(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=512))
    trained, _ = run_job(tmp_path, base, lora={"dora": True, "modules_to_save": ["ln_f"]})
    assert trained.metrics["trainable_parameters"] > 0


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_embeddings_that_are_also_the_head_are_refused_as_a_module(tmp_path: Path, base: Path, modules: list[str]) -> None:
    reason = refusal(tmp_path, base, training=settings_of({"modules_to_save": modules}))
    assert "one tensor" in reason.message


@pytest.mark.parametrize(
    ("lora", "field"),
    [
        ({"targets": ["c_attn"]}, "training.lora.targets"), ({"targets": ["q_proj", "query"]}, "training.lora.targets"),
        ({"targets": ["model.layers.7.*"]}, "training.lora.targets"), ({"targets": ["embed_tokens"]}, "training.lora.targets"),
        ({"modules_to_save": ["classifier"]}, "training.lora.modules_to_save"),
        ({"initialisation": "pissa", "rank": 64}, "training.lora.rank"),
    ],
)  # fmt: skip
def test_what_the_base_model_does_not_have_is_refused(tmp_path: Path, base: Path, lora: dict[str, Any], field: str) -> None:
    assert refusal(tmp_path, base, training=settings_of(lora)).field == field


def test_the_adapter_of_a_training_on_preferences_is_checked_too(tmp_path: Path, base: Path) -> None:
    preference = PreferenceSettings(lora=LoraSettings(targets=("query",)))
    assert refusal(tmp_path, base, preference=preference).field == "preference.lora.targets"


@pytest.mark.parametrize("method", [PreferenceSettings, KtoSettings])
def test_a_training_that_compares_with_the_base_model_leaves_it_as_it_is(method: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="reference"):
        method.model_validate({"lora": {"initialisation": "pissa"}})


@pytest.mark.parametrize(
    "settings",
    [
        {"lora": {"dora": True, "initialisation": "pissa"}}, {"lora": {"initialisation": "pissa"}, "quantization": "nf4"},
        {"lora": {"targets": ["q_proj"], "modules_to_save": ["q_proj"]}}, {"lora": {"targets": ["a b"]}},
        {"lora": {"targets": [""]}}, {"lora": {"initialisation": "olora"}},
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused_before_anything_loads(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainingSettings.model_validate(settings)


def test_embeddings_and_head_are_trained_where_they_are_two_tensors(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("Llama", tie_word_embeddings=False))
    trained, evaluated = run_job(tmp_path, base, lora={"rank": 2, "modules_to_save": ["embed_tokens", "lm_head"]})
    assert trained.metrics["trainable_parameters"] > 2 * 300 * 32
    assert evaluated.metrics["loss"] > 0


def test_an_adapter_of_another_base_is_refused_in_words(tmp_path: Path, base: Path) -> None:
    import torch

    from services.trainer.modelling.adapter import load_for_inference, new_adapter, write_adapter
    from services.trainer.modelling.base import load_base
    from tests.tiny_model import build

    device, folder = torch.device("cpu"), tmp_path / "adapter"
    folder.mkdir()
    write_adapter(new_adapter(load_base(base, torch.float32, device), LoraSettings(rank=2), seed=0), folder, "base")
    wider, shallower = build(tmp_path / "wider", hidden=64), build(tmp_path / "shallower", layers=1)
    for other in (wider, shallower, dressed(tmp_path / "gpt2", random_model("GPT2", n_embd=32, n_layer=2, n_head=4))):
        with pytest.raises(UserFault, match="does not fit the base model"):
            load_for_inference(other, folder, torch.float32, device)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": "many"}))
    with pytest.raises(UserFault, match="does not fit the base model"):
        load_for_inference(base, folder, torch.float32, device)


@pytest.mark.parametrize(
    "option",
    [
        {"init_lora_weights": "pissa"}, {"layer_replication": [[0, 2]]}, {"megatron_config": {"x": 1}, "megatron_core": "json"},
        {"alora_invocation_tokens": [1]}, {"use_qalora": True}, {"bias": "all"}, {"peft_type": "IA3"}, {"of_the_future": 1},
    ],
)  # fmt: skip
def test_options_of_an_adapter_that_would_make_another_model_are_refused_by_name(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, **option}))
    with pytest.raises(ForeignOption, match="LoRA adapter" if "peft_type" in option else next(iter(option))):
        stored_lora(tmp_path)


def test_an_adapter_made_elsewhere_is_read_whatever_it_says_of_its_origin(tmp_path: Path) -> None:
    from peft import LoraConfig

    made = LoraConfig(r=3, target_modules=["q_proj"], use_rslora=True, rank_pattern={"k_proj": 1}, task_type="CAUSAL_LM")
    origin = {"base_model_name_or_path": "/secret", "auto_mapping": {"base_model_class": "X"}, "revision": "main"}
    described = json.loads(json.dumps(made.to_dict(), default=sorted)) | origin
    (tmp_path / "adapter_config.json").write_text(json.dumps(described))
    found = stored_lora(tmp_path)
    assert (found.r, set(found.target_modules), found.use_rslora, found.rank_pattern) == (
        3,
        {"q_proj"},
        True,
        {"k_proj": 1},
    )
    assert (found.base_model_name_or_path, found.auto_mapping) == (None, None)


def test_an_adapter_of_a_base_with_other_weights_is_refused_in_words(tmp_path: Path, base: Path) -> None:
    from tests.tiny_model import build

    data = prepare_job(tmp_path, base).outputs["dataset"]
    adapter = train_in(tmp_path, base, data, settings_of({"rank": 2})).outputs["adapter"]
    step = TrainSettings(base_model=str(build(tmp_path / "other", seed=1)), training=settings_of({}))
    from services.trainer.steps.train import train

    with pytest.raises(UserFault, match="trained on a base model with other files"):
        train(context_of(tmp_path, step, {"dataset": data, "adapter": adapter}))


def test_a_layer_whose_weights_a_state_space_model_reads_past_the_adapter_is_no_target() -> None:
    sizes = {"mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False, "num_experts": 2}
    jamba = random_model("Jamba", attn_layer_period=2, attn_layer_offset=1, **sizes)
    names = {path.rpartition(".")[2] for path in linear_layers(jamba)}
    assert names >= {"in_proj", "x_proj", "out_proj", "q_proj"}
    assert "dt_proj" not in names
