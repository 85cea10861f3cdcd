"""Base models of other architectures and broken copies of the tiny one, and a job of two steps that shows how each ends."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.reasons import Reason
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import EvaluateSettings, PrepareSettings, TrainSettings
from services.chassis.executor.child import UserFault
from tests.tiny_model import build
from tests.trainer import context_of

ROWS = [{"prompt": f"colour {number}?", "completion": "red." if number % 2 else "blue."} for number in range(6)]
SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
"""Common names of a configuration's sizes; an architecture ignores what it does not know."""


def dressed(folder: Path, model: Any) -> Path:
    """Save `model`, of any architecture, with the tiny model's tokenizer and template; return `folder`."""
    plain = build(folder.with_name(f"{folder.name}-tokenizer"))
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(plain / file, folder / file)
    return folder


def random_model(architecture: str, **sizes: Any) -> Any:
    """Return a tiny random causal language model of the library's architecture, for example `Qwen2`."""
    import torch
    import transformers

    config = getattr(transformers, f"{architecture}Config")(**{**SIZES, **sizes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Replace the tensors of the model in `folder` by what `change` makes of them; return `folder`."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def configured(folder: Path, name: str = "config.json", **entries: Any) -> Path:
    """Change entries of a JSON file of the model in `folder`; return `folder`."""
    known = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(known | entries))
    return folder


def prepare_job(home: Path, base: Path, rows: list[dict[str, Any]] = ROWS, **more: Any) -> Any:
    """Run step `prepare` on the rows, all of them for training and for the test."""
    from services.trainer.steps.prepare import prepare

    data = home / "data"
    data.mkdir(exist_ok=True)
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = PrepareSettings(base_model=str(base), dataset=DatasetSettings(reference=str(data)), max_length=128, **more)
    return prepare(context_of(home, settings))


def refusal(home: Path, base: Path, **more: Any) -> Reason:
    """Return why `prepare` refuses the base model; fail if it does not."""
    try:
        prepare_job(home, base, **more)
    except UserFault as fault:
        return fault.reasons[0]
    raise AssertionError("prepare accepted the base model")


def run_job(home: Path, base: Path, **training: Any) -> Any:
    """Run `prepare`, two steps of training, and `evaluate` with the adapter; return the results of the last two."""
    from services.trainer.steps.evaluate import evaluate
    from services.trainer.steps.train import train

    data = prepare_job(home, base).outputs["dataset"]
    optimiser = OptimiserSettings(steps=2, batch_size=2)
    settings = TrainingSettings.model_validate({"precision": "fp32", "max_length": 128, "optimiser": optimiser, **training})
    trained = train(context_of(home, TrainSettings(base_model=str(base), training=settings), {"dataset": data}))
    wanted = EvaluationSettings(metrics=("loss",), max_new_tokens=3, samples=1, precision="fp32")
    inputs = {"dataset": data, "adapter": trained.outputs["adapter"]}
    return trained, evaluate(context_of(home, EvaluateSettings(base_model=str(base), evaluation=wanted), inputs))
