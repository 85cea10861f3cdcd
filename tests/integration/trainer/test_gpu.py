"""On a machine with a GPU: a quantised base model is trained and measured there, and the facts say so."""

import json
from pathlib import Path

import pytest
import torch

from schemas.artifacts import ArtifactRef
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import EvaluateSettings, TrainSettings
from services.trainer.modelling.adapter import RECORD
from services.trainer.steps.evaluate import evaluate
from services.trainer.steps.train import train
from tests.trainer import context_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a machine with a GPU")


@pytest.mark.parametrize("packing", [False, True])
def test_a_quantised_base_model_is_trained_and_measured_on_the_gpu(
    tmp_path: Path, base: Path, dataset: ArtifactRef, packing: bool
) -> None:
    optimiser = OptimiserSettings(steps=4, batch_size=4, micro_batch_size=2, learning_rate=1e-2)
    settings = TrainingSettings(
        quantization="nf4", precision="auto", packing=packing, max_length=160, checkpoint_steps=2, optimiser=optimiser
    )
    trained = train(context_of(tmp_path, TrainSettings(base_model=str(base), training=settings), {"dataset": dataset}))
    adapter = trained.outputs["adapter"]
    assert trained.facts["device"] == "cuda"
    assert json.loads((Path(adapter.uri) / RECORD).read_bytes())["device"] == "cuda"
    assert trained.metrics["memory_peak_bytes"]

    wanted = EvaluateSettings(base_model=str(base), evaluation=EvaluationSettings(metrics=("loss",), samples=1))
    measured = evaluate(context_of(tmp_path, wanted, {"dataset": dataset, "adapter": adapter}, step="evaluate"))
    assert measured.metrics["loss"]
