"""A training of any method that is killed, or asked to end by SIGTERM, goes on in another process and makes the same bytes."""

import hashlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.distill import DistillSettings
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.grpo import GrpoSettings
from schemas.recipes.kto import KtoSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.reward import RewardModelSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context, run_child
from services.trainer.judging.service import SERVICE_VARIABLE
from services.trainer.steps.train import train
from tests.failing_proxy import Treatment, failing_proxy
from tests.forked import FORKS, become_child
from tests.integration.feedback.endpoint import Chat, Reply, chat_endpoint, says
from tests.judging import judging
from tests.trainer import context_of, put_lines, task_of

_STEPS, _DIES_AFTER = 6, 3


def settings(base: Path, method: str) -> TrainSettings:
    shared: dict[str, Any] = {
        "precision": "fp32", "max_length": 128, "checkpoint_steps": 2,
        "optimiser": OptimiserSettings(learning_rate=1e-2, steps=_STEPS, batch_size=4),
    }  # fmt: skip
    dropout = {**shared, "lora": {"dropout": 0.1}}
    of_sampling = {name: value for name, value in dropout.items() if name != "max_length"}
    letters = {"kind": "rules", "rules": [{"name": "late letters", "kind": "not_regex", "pattern": "[a-m]"}]}
    of_method: Mapping[str, Any] = {
        "sft": {"training": TrainingSettings.model_validate(dropout)},
        "dpo": {"preference": PreferenceSettings.model_validate(shared)},
        "kto": {"kto": KtoSettings.model_validate(dropout)},
        "reward": {"reward": RewardModelSettings.model_validate(dropout)},
        "grpo": {
            "grpo": GrpoSettings.model_validate(
                {"rewards": [letters], "max_new_tokens": 6, "group_size": 4, "max_prompt_tokens": 96, **of_sampling}
            )
        },
        "distill": {
            "distill": DistillSettings.model_validate(
                {"teacher": str(base), "max_new_tokens": 6, "temperature": 1.5, "max_prompt_tokens": 96, **of_sampling}
            )
        },
    }
    return TrainSettings(base_model=str(base), **of_method[method])


@pytest.fixture
def data(tmp_path: Path) -> Mapping[str, ArtifactRef]:
    """The input of each method."""
    asked = [[{"role": "user", "content": f"{'Where ' * (number % 3)}is parcel {number}?"}] for number in range(8)]
    rows = [
        {"id": str(number), "messages": messages, "completion": "Sorry about that.", "columns": {}}
        for number, messages in enumerate(asked)
    ]
    pairs = [
        {"id": str(number), "messages": messages, "chosen": "Sorry about that.", "rejected": "No idea."}
        for number, messages in enumerate(asked)
    ]
    preferences = put_lines(tmp_path, preferences=pairs)
    dataset = put_lines(tmp_path, train=rows)
    return {
        "sft": dataset,
        "distill": dataset,
        "grpo": dataset,
        "dpo": preferences,
        "kto": preferences,
        "reward": preferences,
    }


def dying(task: str, number: int, **env: str) -> NoReturn:
    """Run a task as a worker starts it, and send the signal to this process once it has done some steps."""
    os.environ.update(env)
    become_child(task)

    def until(context: Context) -> StepResult:
        report = context.progress

        def progress(done: int, *rest: Any, **more: Any) -> None:
            report(done, *rest, **more)
            if done == _DIES_AFTER:
                os.kill(os.getpid(), number)

        context.progress = progress  # type: ignore[method-assign]
        return train(context)

    run_child({"train": until})


def judged(base: Path, chat: Chat) -> TrainSettings:
    """Return settings of grpo whose rewards are the grades of a judge."""
    given = settings(base, "grpo").model_dump(mode="json", exclude_none=True)
    judge = {"kind": "openai", "endpoint": chat.url, "model": "judge"}
    given["grpo"]["rewards"] = [{"kind": "judge", "feedback": {"judge": judge, "rubric": {"principle": "short"}}}]
    return TrainSettings.model_validate(given)


def inputs_of(method: str, data: Mapping[str, ArtifactRef]) -> dict[str, ArtifactRef]:
    return {"dataset" if method in ("sft", "distill", "grpo") else "preferences": data[method]}


@pytest.mark.parametrize(
    ("method", "number", "kept"),
    [
        pytest.param("sft", signal.SIGKILL, 2, id="sft-killed"),
        pytest.param("dpo", signal.SIGKILL, 2, id="dpo-killed"),
        pytest.param("kto", signal.SIGKILL, 2, id="kto-killed"),
        pytest.param("reward", signal.SIGKILL, 2, id="reward-killed"),
        pytest.param("distill", signal.SIGKILL, 2, id="distill-killed"),
        pytest.param("grpo", signal.SIGKILL, 2, id="grpo-killed"),
        pytest.param("dpo", signal.SIGTERM, 3, id="dpo-asked-to-end"),
    ],
)
def test_the_next_process_makes_what_one_that_was_never_interrupted_makes(
    tmp_path: Path, base: Path, data: Mapping[str, ArtifactRef], method: str, number: int, kept: int
) -> None:
    given, inputs = settings(base, method), inputs_of(method, data)
    killed = FORKS.Process(target=dying, args=(task_of(tmp_path, given, inputs).model_dump_json(), number))
    killed.start()
    killed.join()
    assert killed.exitcode == (-number if number == signal.SIGKILL else 0)
    checkpoints = sorted((tmp_path / "checkpoints").glob("job/step/*/*/step-*"), key=lambda path: path.name)
    assert checkpoints[-1].name == f"step-{kept:08d}", "SIGTERM saves the step that was done, SIGKILL saves nothing"
    resumed = train(context_of(tmp_path, given, inputs, attempt=2))
    whole = train(context_of(tmp_path / "uninterrupted", given, inputs))
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def test_a_training_that_is_killed_while_it_asks_its_judge_recalls_the_scores_it_had_and_makes_the_same_bytes(
    tmp_path: Path, base: Path, data: Mapping[str, ArtifactRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = set[str]()

    def grade(body: dict[str, Any]) -> Reply:
        """Grade by the letters, otherwise than before where a text was graded before."""
        text = str(body["messages"][-1]["content"])
        return says(str(1 + (hashlib.sha256(text.encode()).digest()[0] + (text in known)) % 5))

    with judging(tmp_path / "judges") as running, chat_endpoint() as chat, failing_proxy(running.address) as proxy:
        chat.answer = grade
        given, inputs = judged(base, chat), inputs_of("grpo", data)
        task = task_of(tmp_path, given, inputs).model_dump_json()
        killed = FORKS.Process(target=dying, args=(task, 0), kwargs={SERVICE_VARIABLE: proxy.address})

        def kill_at_the_fourth_step(request: int) -> Treatment:
            if request == 1 + 4:
                known.update(str(body["messages"][-1]["content"]) for body in chat.asked)
                killed.kill()
            return "passed on"

        proxy.treat = kill_at_the_fourth_step
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        assert known
        monkeypatch.setenv(SERVICE_VARIABLE, running.address)
        resumed = train(context_of(tmp_path, given, inputs, attempt=2))
        known.clear()
        whole = train(context_of(tmp_path / "uninterrupted", given, inputs))
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256
