"""What is told to MLflow about a step, and how the ends of attempts become the states of runs."""

from typing import Any, cast

import pytest

from schemas.jobs import StepFault, StepResult
from schemas.progress import DeviceReading, StepProgressed
from schemas.recipes.evaluation import EvaluationSettings
from schemas.steps import EvaluateSettings
from services.chassis.executor.runner import (
    Completed,
    Failed,
    Outcome,
    Postponed,
    Stopped,
    StopReason,
    Work,
    WorkContext,
)
from services.chassis.process.redaction import secrets_of
from services.chassis.settings import ServiceSettings
from services.chassis.storage.stores import Unwritable
from services.trainer import settings as trainer_settings
from services.trainer.settings import TrainerSettings
from services.trainer.tracking.described import machine_values, params_of, result_metrics
from services.trainer.tracking.messages import Begun, Ended, Lost, Told
from services.trainer.tracking.recorder import UnreadMessages, record
from services.trainer.tracking.runs import Runs
from services.trainer.tracking.tracked import Tracked
from services.trainer.tracking.tracker import Tracker
from tests.executor import Script
from tests.steps import request


class Heard:
    """Stands in for the tracker."""

    def __init__(self) -> None:
        self.messages: list[Told] = []

    def tell(self, message: Told) -> None:
        self.messages.append(message)


async def heard(outcome: Outcome | Exception, reason: StopReason | None = None, kind: str = "evaluate") -> list[Told]:
    """Return what is told of an attempt that ends with `outcome`."""

    async def run(work: Work, context: WorkContext) -> Outcome:
        if reason:
            context.request_stop(reason)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    tracker, context = Heard(), WorkContext(ServiceSettings(), "toy", lambda data: None)
    try:
        await Tracked(Script(run), cast(Tracker, tracker)).run(Work(request(kind=kind), "lease"), context)
    except RuntimeError:
        assert isinstance(outcome, RuntimeError)
    return tracker.messages


@pytest.mark.parametrize(
    ("outcome", "reason", "status"),
    [
        (Completed(StepResult()), None, "FINISHED"),
        (Failed(StepFault(cause="user", message="no")), None, "FAILED"),
        (RuntimeError("unexpected"), None, "FAILED"),
        (Stopped(), StopReason.CANCEL, "KILLED"),
        (Completed(StepResult()), StopReason.CANCEL, "KILLED"),
        (Stopped(), StopReason.DRAIN, "SCHEDULED"),
        (Postponed(Unwritable(place="/", why="full", said="no room")), None, "SCHEDULED"),
    ],
)
async def test_the_end_of_an_attempt_is_the_state_of_its_run(outcome: Any, reason: StopReason | None, status: str) -> None:
    begun, ended = await heard(outcome, reason)
    assert isinstance(begun, Begun)
    assert isinstance(ended, Ended)
    assert (begun.run, ended.run, ended.status) == ("job-1/evaluate", "job-1/evaluate", status)


async def test_an_attempt_that_another_worker_has_gets_no_state_here() -> None:
    assert isinstance((await heard(Stopped(), StopReason.LEASE_LOST))[-1], Lost)


async def test_steps_that_neither_make_nor_measure_a_model_have_no_run() -> None:
    assert await heard(Completed(StepResult()), kind="label") == []


def test_settings_become_parameters_under_dotted_names_without_passwords_and_cut() -> None:
    settings = EvaluateSettings(
        base_model="https://ann:hunter2-hunter2@example.org/m",
        evaluation=EvaluationSettings(samples=7),
        chat_template="x" * 900,
    )
    params = params_of(request(settings=settings))
    assert params["base_model"] == "https://ann:***@example.org/m"
    assert params["evaluation.samples"] == "7"
    assert len(params["chat_template"]) == 500


def test_only_numbers_are_metrics_of_a_result() -> None:
    result = StepResult(metrics={"loss": 1.0, "unknown": None, "endless": float("inf")})
    assert result_metrics(result) == {"result.loss": 1.0}


def test_gpus_have_metrics_of_their_own() -> None:
    readings = [
        DeviceReading(device=device, utilisation=0.5, celsius=None, memory_used_bytes=3, memory_bytes=4)
        for device in ("cpu", "gpu0")
    ]
    progress = StepProgressed(
        job_id="j", step="s", attempt=1, kind="train", done=1, of=2, memory_bytes=2, devices=tuple(readings)
    )
    assert machine_values(progress) == {"memory_bytes": 2, "gpu0.memory_used_bytes": 3, "gpu0.utilisation": 0.5}


def test_the_recorder_says_once_that_the_server_is_away_and_once_that_it_is_back() -> None:
    class Flaky(Runs):
        def __init__(self) -> None:
            self.trouble = None
            self.said = ["away", "away", None, None]

        def write(self) -> str | None:
            self.trouble = self.said.pop(0)
            if len(self.said) == 1:
                inbox.ended.set()
            return self.trouble

        def counted(self) -> int:
            return 0

    class AtOnce(UnreadMessages):
        def take(self, seconds: float) -> list[Told]:
            return []

    inbox, answers = AtOnce(), list[Any]()
    record(Flaky(), inbox, answers.append, retry_seconds=0)
    assert [notice.trouble for notice in answers] == ["away", None]


def test_the_address_of_the_server_needs_the_client_and_its_password_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "https://ann:hunter2-hunter2@example.org"
    monkeypatch.setattr(trainer_settings, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'neuroweaver\[mlflow\]'"):
        TrainerSettings(mlflow_tracking_uri=uri)
    monkeypatch.setattr(trainer_settings, "find_spec", lambda name: object())
    assert "hunter2-hunter2" in TrainerSettings(mlflow_tracking_uri=uri).secrets
    assert "hunter2-hunter2" in secrets_of({"NEUROWEAVER_MLFLOW_TRACKING_URI": uri})
