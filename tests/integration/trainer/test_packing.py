"""Rows that share a sequence are computed and learnt as if each were alone, or packing is refused before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ArtifactRef
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.base import load_base
from services.trainer.modelling.packing import Packing, mixes_rows, placed
from services.trainer.steps.train import train
from tests.base_models import dressed, prepare_job, random_model, refusal
from tests.trainer import context_of, lines_of

CPU = torch.device("cpu")


def run(home: Path, base: Path, data: ArtifactRef, **changes: Any) -> list[dict[str, float]]:
    optimiser = OptimiserSettings(learning_rate=3e-2, steps=4, batch_size=6)
    training = {"precision": "fp32", "max_length": 160, "optimiser": optimiser, **changes}
    settings = TrainSettings(base_model=str(base), training=TrainingSettings.model_validate(training))
    result = train(context_of(home, settings, {"dataset": data}))
    return lines_of(result.outputs["adapter"], "curve.jsonl")


def test_rows_fill_sequences_of_the_limit_the_longest_first() -> None:
    assert placed([3, 9, 4, 6, 1], 10) == [[1, 4], [3, 2], [0]]
    assert placed([3, 9], None) == [[0, 1]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_logits_of_packed_rows_are_those_of_each_row_alone(base: Path, attention: str) -> None:
    model = load_base(base, torch.float32, CPU).eval()
    model.set_attn_implementation(attention)
    rows = [list(range(5, 5 + length)) for length in (7, 12, 3, 9)]
    batch = Packing(20, 0)([{"input_ids": row, "labels": row} for row in rows])
    assert batch["input_ids"].shape == (2, 20), "19 tokens, in a common width"
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        for sequence, start, row in ((0, 0, 1), (0, 12, 0), (1, 0, 3), (1, 9, 2)):
            alone = model(input_ids=torch.tensor([rows[row]]), use_cache=False).logits[0]
            own = together[sequence, start : start + len(rows[row])]
            assert torch.allclose(own, alone, atol=1e-5)


def test_a_packed_run_has_the_losses_of_a_padded_one(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    padded, packed = run(tmp_path / "1", base, dataset), run(tmp_path / "2", base, dataset, packing=True)
    for name in ("loss", "gradient_norm"):
        assert [point[name] for point in packed] == pytest.approx([point[name] for point in padded], rel=1e-5)


def test_an_architecture_that_reads_across_rows_is_refused(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("OPT", word_embed_proj_dim=32, ffn_dim=64))
    reason = refusal(tmp_path, base, training=TrainingSettings(packing=True, max_length=128))
    assert reason.field == "training.packing"
    assert "opt" in reason.message


@pytest.mark.parametrize(
    ("architecture", "mixes"), [("Qwen2", False), ("Gemma2", False), ("GPT2", False), ("Falcon", True)]
)
def test_a_small_model_of_the_architecture_tells_whether_it_keeps_rows_apart(architecture: str, mixes: bool) -> None:
    model = random_model(architecture)
    assert mixes_rows(Architecture(model.config, type(model))) == mixes


def test_an_architecture_that_keeps_rows_apart_is_accepted(tmp_path: Path, base: Path) -> None:
    assert prepare_job(tmp_path, base, training=TrainingSettings(packing=True, max_length=128)).outputs
