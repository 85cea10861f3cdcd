"""Compares the estimated memory of trainings with what their processes took, one process for each configuration."""

import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from services.chassis.storage.cache import CacheSettings
from services.demo.base_model import NAME, install

CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"hidden": 512, "layers": 8, "vocabulary": 8_000, "rows": 8, "length": 256, "supervised": 128, "precision": "fp32"},
    {"hidden": 512, "layers": 8, "vocabulary": 8_000, "rows": 2, "length": 256, "supervised": 128, "precision": "fp32"},
    {"hidden": 512, "layers": 4, "vocabulary": 8_000, "rows": 4, "length": 512, "supervised": 32, "precision": "fp32"},
    {"hidden": 512, "layers": 8, "vocabulary": 8_000, "rows": 8, "length": 256, "supervised": 128, "precision": "bf16"},
    {"hidden": 256, "layers": 4, "vocabulary": 32_000, "rows": 4, "length": 256, "supervised": 200, "precision": "fp32"},
    {"hidden": 768, "layers": 6, "vocabulary": 16_000, "rows": 4, "length": 384, "supervised": 64, "precision": "fp32"},
    {"hidden": 384, "layers": 12, "vocabulary": 4_000, "rows": 16, "length": 128, "supervised": 96, "precision": "fp32"},
    {"model": NAME, "rows": 4, "length": 288, "supervised": 96, "precision": "fp32"},
    {"model": NAME, "rows": 8, "length": 288, "supervised": 96, "precision": "auto"},
    {"hidden": 256, "layers": 6, "vocabulary": 49_000, "rows": 4, "shortest": 170, "length": 512, "supervised": 150, "steps": 80,
     "precision": "auto"},
    {"hidden": 384, "layers": 8, "vocabulary": 16_000, "rows": 8, "shortest": 64, "length": 256, "supervised": 40, "steps": 160,
     "precision": "fp32"},
)  # fmt: skip
"""With `shortest`, the lengths of the rows differ, as those of real data do."""
_STEPS = 4
"""The gaps in the allocator's memory grow during the first steps, and with rows of different lengths for longer."""


def measure(quick: bool) -> dict[str, Any]:
    """Return the largest error relative to the measured peak, how much the lowest estimate is too low, and all errors."""
    errors = []
    for configuration in CONFIGURATIONS[:2] if quick else CONFIGURATIONS:
        with tempfile.TemporaryDirectory() as home:
            _child("build", home, configuration)
            metrics = json.loads(_child("train", home, configuration).splitlines()[-1])
        errors.append(metrics["memory_estimate_bytes"] / metrics["memory_peak_bytes"] - 1)
        print(f"  estimate_error: {errors[-1]:+.3f} of {metrics['memory_peak_bytes'] / 2**20:,.0f} MiB", flush=True)
    return {"estimate_error": max(map(abs, errors)), "estimate_too_low": -min(errors), "estimate_errors": errors}


def _child(task: str, home: str, configuration: dict[str, Any]) -> str:
    command = (sys.executable, "-m", "benchmarks.trainer.estimate_error", task, home, json.dumps(configuration))
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def _build(home: Path, wanted: dict[str, Any]) -> None:
    if "model" in wanted:
        shutil.copytree(install(CacheSettings().cache, print), home / "base")
        return
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny_model import build

    build(home / "base")
    config = LlamaConfig(
        vocab_size=wanted["vocabulary"], hidden_size=wanted["hidden"], intermediate_size=8 * wanted["hidden"] // 3,
        num_hidden_layers=wanted["layers"], num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=4096,
        bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(home / "base")


def _train(home: Path, wanted: dict[str, Any]) -> None:
    import services.trainer.child  # noqa: F401  # how threads wait has to be said before torch is imported
    from schemas.recipes.optimiser import OptimiserSettings
    from schemas.recipes.sft import TrainingSettings
    from schemas.steps import TrainSettings
    from services.trainer.malloc import keep_freed_memory
    from services.trainer.modelling.four_bits import without_bitsandbytes
    from services.trainer.steps.train import train
    from tests.trainer import context_of, put_lines, row

    keep_freed_memory()
    without_bitsandbytes()
    steps, longest, drawn = wanted.get("steps", _STEPS), wanted["length"] - wanted["supervised"] - 20, random.Random(0)
    letters = ("a", "b") if "model" not in wanted else (" a", " b")  # a token each
    shortest = longest - wanted["length"] + wanted.get("shortest", wanted["length"])
    prompts = [
        letters[0] * drawn.randint(shortest, longest)
        for _ in range(wanted["rows"] * (steps if "shortest" in wanted else 1))
    ]
    answer = letters[1] * (wanted["supervised"] - 1)
    data = put_lines(
        home, train=[row(number, prompt, answer) for number, prompt in enumerate([letters[0] * longest, *prompts[1:]])]
    )
    optimiser = OptimiserSettings(steps=steps, batch_size=wanted["rows"])
    settings = TrainingSettings(precision=wanted["precision"], max_length=4096, optimiser=optimiser)
    step = TrainSettings(base_model=str(home / "base"), training=settings)
    print(json.dumps(dict(train(context_of(home, step, {"dataset": data})).metrics)))


if __name__ == "__main__":
    {"build": _build, "train": _train}[sys.argv[1]](Path(sys.argv[2]), json.loads(sys.argv[3]))
