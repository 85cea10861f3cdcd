"""Plain texts are learnt as a whole, without a chat template and each as a row of its own."""

import json
from pathlib import Path
from typing import Any

from schemas.lines import Row
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import EvaluateSettings, PrepareSettings, TrainSettings
from services.language_models.chat_format.chat import Chat
from services.trainer.steps.evaluate import evaluate
from services.trainer.steps.prepare import prepare
from services.trainer.steps.train import train
from tests.trainer import context_of, lines_of

TEXTS = [{"text": f"The shop on street {number} is open."} for number in range(30)]


def prepared(home: Path, base: Path, **dataset: Any) -> Any:
    (home / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    settings = DatasetSettings.model_validate({"reference": str(home / "all.jsonl"), **dataset})
    return prepare(context_of(home, PrepareSettings(base_model=str(base), dataset=settings)))


def test_texts_are_divided_like_rows_and_none_contradicts_another(tmp_path: Path, base: Path) -> None:
    result = prepared(tmp_path, base, split={"test_fraction": 0.3})
    assert 0 < (result.metrics["rows_test"] or 0) < 25
    assert result.metrics["rows_contradicting"] == result.metrics["rows_repeated"] == 0
    assert result.facts["dataset_layout"] == "plain texts, in the columns text"


def test_all_of_a_text_is_learnt_without_a_template(tmp_path: Path, base: Path) -> None:
    result = prepared(tmp_path, base, split={"test": None, "validation_fraction": 0})
    chat = Chat(base)
    first = Row.model_validate(lines_of(result.outputs["dataset"], "train.jsonl")[0])
    (tokens,) = chat.encode([first])
    assert chat.tokenizer.decode(tokens.completion) == TEXTS[0]["text"] + "<|im_end|>"
    assert tokens.prompt == chat.prompts([first])[0] == [chat.tokenizer.eos_token_id]


def test_texts_are_trained_on_and_measured(tmp_path: Path, base: Path) -> None:
    data = prepared(tmp_path, base, split={"test_fraction": 0.3}).outputs["dataset"]
    optimiser = OptimiserSettings(steps=10, batch_size=4, learning_rate=3e-3)
    settings = TrainSettings(base_model=str(base), training=TrainingSettings(precision="fp32", optimiser=optimiser))
    adapter = train(context_of(tmp_path, settings, {"dataset": data})).outputs["adapter"]
    measured = EvaluateSettings(
        base_model=str(base),
        evaluation=EvaluationSettings(metrics=("loss", "exact_match"), max_new_tokens=4, precision="fp32"),
    )
    before = evaluate(context_of(tmp_path, measured, {"dataset": data})).metrics["loss"]
    after = evaluate(context_of(tmp_path, measured, {"dataset": data, "adapter": adapter})).metrics["loss"]
    assert before is not None
    assert after is not None
    assert after < before
