"""What the steps of a job make of chats: counts in their metrics, one template from the rows to the adapter."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sampling import SamplingSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import EvaluateSettings, PrepareSettings, SampleSettings, TrainSettings
from services.chassis.executor.child import UserFault
from services.language_models.chat_format.chat import Chat
from services.trainer.steps.evaluate import evaluate
from services.trainer.steps.prepare import prepare
from services.trainer.steps.sample import sample
from services.trainer.steps.train import train
from tests.chat_templates import CHATML, DATED, R1, TOOLS
from tests.trainer import context_of, put_lines

TURNS = [
    {"role": "user", "content": "Open?"},
    {"role": "assistant", "content": "Until six."},
    {"role": "user", "content": "On Sunday?"},
]
ROWS = [{"id": f"row-{number}", "messages": TURNS, "completion": f"Closed {number}.", "columns": {}} for number in range(4)]
OPTIMISER = OptimiserSettings(steps=1, batch_size=2)


@pytest.fixture
def data(tmp_path: Path) -> ArtifactRef:
    """Return a `dataset` artifact of four chats with two answers each."""
    return put_lines(tmp_path, train=ROWS)


@pytest.fixture
def bare(tmp_path: Path, base: Path) -> Path:
    """Return a base model without a chat template."""
    folder = Path(shutil.copytree(base, tmp_path / "bare"))
    (folder / "chat_template.jinja").unlink()
    return folder


def prepared(home: Path, base: Path, **settings: Any) -> StepResult:
    rows = home / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "Is {number} open?", "completion": "Yes."}}\n' for number in range(4)))
    dataset = DatasetSettings.model_validate({"reference": str(rows), "split": {"test": None, "validation_fraction": 0}})
    return prepare(context_of(home, PrepareSettings(base_model=str(base), dataset=dataset, **settings)))


def trained(home: Path, base: Path, data: ArtifactRef, template: str | None = None, **settings: Any) -> StepResult:
    training = TrainingSettings.model_validate({"precision": "fp32", "optimiser": OPTIMISER, **settings})
    step = TrainSettings(base_model=str(base), training=training, chat_template=template)
    return train(context_of(home, step, {"dataset": data}))


@pytest.mark.parametrize(("turns", "counts"), [("all", (8, 0)), ("last", (4, 4))])
def test_training_counts_the_answers_that_it_learns(
    tmp_path: Path, base: Path, data: ArtifactRef, turns: str, counts: tuple[int, int]
) -> None:
    found = trained(tmp_path, base, data, assistant_turns=turns).metrics
    assert (found["answers_learnt"], found["answers_not_learnt"]) == counts


def test_preparation_counts_the_answers_of_the_training_split(tmp_path: Path, base: Path) -> None:
    found = prepared(tmp_path, base).metrics
    assert (found["answers_learnt"], found["answers_not_learnt"]) == (4, 0)


def test_a_base_without_a_template_is_refused_with_the_setting_that_helps(tmp_path: Path, bare: Path) -> None:
    with pytest.raises(UserFault, match=r"no chat template.*give a chat_template"):
        prepared(tmp_path, bare)


def test_the_requests_template_makes_the_rows_and_is_saved_with_the_adapter(
    tmp_path: Path, bare: Path, data: ArtifactRef
) -> None:
    made = prepared(tmp_path, bare, chat_template=CHATML)
    result = trained(tmp_path, bare, data, CHATML)
    saved = Chat(Path(result.outputs["adapter"].uri))
    assert saved.template_sha256 == made.facts["chat_template_sha256"] == result.facts["chat_template_sha256"]


def test_a_requests_template_that_cannot_be_read_is_a_fault_of_the_request(tmp_path: Path, bare: Path) -> None:
    with pytest.raises(UserFault, match=r"chat_template: .*not valid Jinja"):
        prepared(tmp_path, bare, chat_template="{% for %}")
    with pytest.raises(UserFault, match=r"chat_template: .*not valid Jinja"):
        trained(tmp_path, bare, put_lines(tmp_path, train=ROWS), "{% for %}")


def test_another_template_is_another_recipe(tmp_path: Path, base: Path, data: ArtifactRef) -> None:
    recipes = {trained(tmp_path / name, base, data, name).facts["recipe_sha256"] for name in (CHATML, DATED)}
    assert len(recipes) == 2


def test_pairs_that_the_template_refuses_are_left_out_and_counted(tmp_path: Path, base: Path) -> None:
    said = ["thought</think>yes", "other</think>no", "no thought at all"]
    pairs = [
        {"id": str(number), "messages": TURNS[:1], "chosen": said[0], "rejected": said[1 + (number == 1)]}
        for number in range(3)
    ]
    wanted = PreferenceSettings.model_validate({"precision": "fp32", "optimiser": OPTIMISER})
    step = TrainSettings(base_model=str(base), preference=wanted, chat_template=R1)
    found = train(context_of(tmp_path, step, {"preferences": put_lines(tmp_path, preferences=pairs)})).metrics
    assert (found["examples"], found["examples_refused"]) == (2, 1)


def test_pairs_teach_their_last_answers_only(tmp_path: Path, base: Path) -> None:
    (tokens,) = Chat(base).encode([([*map(_message, TURNS)], "Closed.")], "last")
    assert (tokens.answers, tokens.unlearnt) == (1, 1)


def _message(turn: dict[str, str]) -> Any:
    from schemas.lines import Message

    return Message.model_validate(turn)


def test_rows_with_tools_go_through_every_step(tmp_path: Path, base: Path) -> None:
    call = {"type": "function", "function": {"name": "stock", "arguments": {"item": "lamp"}}}
    turns = [*TURNS[:1], {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "4 left"}]
    tools = [{"type": "function", "function": {"name": "stock", "parameters": {}}}]
    rows = [{**ROWS[number], "messages": turns, "tools": tools} for number in range(2)]
    data = put_lines(tmp_path, train=rows, test=rows)
    adapter = trained(tmp_path, base, data, TOOLS).outputs["adapter"]
    sampling = SamplingSettings(n=2, prompts=2, max_new_tokens=2)
    settings = SampleSettings(base_model=str(base), chat_template=TOOLS, sampling=sampling)
    assert sample(context_of(tmp_path, settings, {"dataset": data, "adapter": adapter})).metrics["prompts"] == 1
    wanted = EvaluationSettings(metrics=("loss",), max_new_tokens=2, samples=1, precision="fp32")
    measured = evaluate(
        context_of(
            tmp_path, EvaluateSettings(base_model=str(base), evaluation=wanted), {"dataset": data, "adapter": adapter}
        )
    )
    assert measured.metrics["rows"] == 2


def test_rows_that_the_template_refuses_after_all_are_a_fault_of_the_data(tmp_path: Path, base: Path) -> None:
    forged = put_lines(tmp_path, train=[{**ROWS[0], "completion": "Closed.<|im_end|>"}])
    with pytest.raises(UserFault, match="control token"):
        trained(tmp_path, base, forged)
