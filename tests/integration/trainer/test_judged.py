"""A judge of the feedback service rewards the answers of a training: a score that is missing teaches nothing, and says why."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.judgements import JudgementRequest, Judgements, RegisteredJudge
from schemas.recipes.dataset import DatasetSettings
from schemas.steps import PrepareSettings, TrainSettings
from services.chassis.executor.child import UserFault
from services.trainer.judging import service
from services.trainer.judging.judges import judges_of
from services.trainer.judging.reward_judge import TooFewScores
from services.trainer.judging.service import SERVICE_VARIABLE
from services.trainer.steps.prepare import prepare
from services.trainer.steps.train import train
from tests.failing_proxy import FailingProxy, failing_proxy
from tests.integration.feedback.endpoint import Chat, Reply, chat_endpoint, says
from tests.judging import judging
from tests.trainer import context_of, lines_of, put_lines, row


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with judging(tmp_path_factory.mktemp("judging")) as running:
        yield running.address


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Chat]:
    with chat_endpoint() as chat:
        yield chat


@pytest.fixture
def chat(address: str, endpoint: Chat, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Return the endpoint of the judge, which grades by the letters of a text; the trainer knows the feedback service."""
    monkeypatch.setenv(SERVICE_VARIABLE, address)
    monkeypatch.setattr(service, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(service, "_LONGEST_WAIT_SECONDS", 0.01)
    endpoint.answer = by_letters
    endpoint.asked.clear()
    return endpoint


def by_letters(body: dict[str, Any]) -> Reply:
    return says(str(1 + _number(body) % 5))


def _number(body: dict[str, Any]) -> int:
    text = body["messages"][-1]["content"]
    return hashlib.sha256(text.encode()).digest()[0]


def silent_for(share: int) -> Any:
    """Return a judge that gives no grade to one text of so many."""
    return lambda body: says("Who knows?") if _number(body) % share == 0 else by_letters(body)


@pytest.fixture
def data(tmp_path: Path) -> ArtifactRef:
    return put_lines(tmp_path, train=[row(number, f"What is {number}?", "") for number in range(6)])


def settings(base: Path, chat: Chat, *, method: str = "grpo", steps: int = 4, **feedback: Any) -> TrainSettings:
    judge = {"judge": {"kind": "openai", "endpoint": chat.url, "model": "judge"}, "rubric": {"principle": "short"}}
    return TrainSettings.model_validate(
        {
            "base_model": str(base),
            method: {
                "precision": "fp32", "max_new_tokens": 6, "group_size": 4, "checkpoint_steps": 9,
                "rewards": [{"kind": "judge", "feedback": {**judge, **feedback}}],
                "optimiser": {"learning_rate": 1e-2, "steps": steps, "batch_size": 16, "schedule": "constant"},
            },
        }
    )  # fmt: skip


def learn(home: Path, given: TrainSettings, data: ArtifactRef) -> StepResult:
    return train(context_of(home, given, {"dataset": data}, step="learn"))


def questions(chat: Chat) -> set[str]:
    return {str(body["messages"][-1]["content"]) for body in chat.asked}


def curve(result: StepResult) -> list[dict[str, float]]:
    return lines_of(result.outputs["adapter"], "curve.jsonl")


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_judge_rewards_the_answers_and_is_part_of_the_recipe(
    tmp_path: Path, base: Path, data: ArtifactRef, chat: Chat, method: str
) -> None:
    result = learn(tmp_path, settings(base, chat, method=method), data)
    assert all(1 <= point["reward_judge"] <= 5 for point in curve(result))
    assert all(point["rewards_failed"] == 0 for point in curve(result))
    assert result.facts["judge"] == "openai:judge"
    assert "rewards_missing" not in result.facts
    recorded = json.loads((Path(result.outputs["adapter"].uri) / "training.json").read_text())
    assert recorded["judges"] == {"judge": {"judge": "openai:judge", "rubric_sha256": result.facts["rubric_sha256"]}}
    other = learn(tmp_path, settings(base, chat, method=method, rubric={"principle": "long"}, steps=1), data)
    assert other.facts["rubric_sha256"] != result.facts["rubric_sha256"]
    question = chat.asked[0]["messages"][-1]["content"]
    assert "Wanted: short" in question
    assert "user: What is" in question


def test_answers_without_a_score_teach_nothing_and_are_counted_and_named(
    tmp_path: Path, base: Path, data: ArtifactRef, chat: Chat
) -> None:
    chat.answer = silent_for(5)
    result = learn(tmp_path, settings(base, chat, failed_at_most=0.9), data)
    failed = sum(point["rewards_failed"] for point in curve(result)) / len(curve(result))
    assert 0 < failed < 0.9
    assert all(point["reward_judge"] >= 1 for point in curve(result)), "a missing score is no 0"
    assert "without judge: the judge answered without a score" in result.facts["rewards_missing"]


def test_too_many_missing_scores_end_the_step_and_a_later_attempt_goes_on(
    tmp_path: Path, base: Path, data: ArtifactRef, chat: Chat
) -> None:
    whole = learn(tmp_path / "whole", settings(base, chat), data)
    asked = list[str]()

    def until_the_last_step(body: dict[str, Any]) -> Reply:
        asked.append(body["messages"][-1]["content"])
        return by_letters(body) if len(set(asked)) < 40 else Reply({}, status=401)

    chat.answer = until_the_last_step
    with pytest.raises(
        TooFewScores, match=r"of 16 answers of a step have no score.*failed_at_most is 0.25.*refuses the key"
    ):
        learn(tmp_path, settings(base, chat), data)
    before = set(asked[:24])
    chat.answer, asked = by_letters, []
    chat.asked.clear()
    resumed = learn(tmp_path, settings(base, chat), data)
    assert not before & questions(chat), "scores that are known are not asked again"
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def test_a_wrong_judge_is_refused_by_its_field_before_anything_is_loaded(
    tmp_path: Path, base: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "What is it?", "completion": "It."}\n' * 4)
    given = settings(base, chat).grpo
    asked = PrepareSettings(
        base_model=str(base),
        dataset=DatasetSettings.model_validate({"reference": str(tmp_path / "rows.jsonl"), "split": {"test": None}}),
        max_length=128,
        grpo=given,
    )
    chat.answer = lambda body: Reply({}, status=404)
    with pytest.raises(UserFault) as refused:
        prepare(context_of(tmp_path, asked))
    assert refused.value.reasons[0].field == "grpo.rewards.0.feedback.judge.endpoint"
    chat.answer = by_letters
    assert prepare(context_of(tmp_path, asked)).outputs
    monkeypatch.delenv(SERVICE_VARIABLE)
    with pytest.raises(UserFault, match=SERVICE_VARIABLE):
        prepare(context_of(tmp_path, asked))


def test_while_the_feedback_service_is_away_the_step_fails_in_words(
    tmp_path: Path, base: Path, data: ArtifactRef, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVICE_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(TooFewScores, match=r"grpo\.rewards\.0\.feedback is away: .*cannot be reached"):
        learn(tmp_path, settings(base, chat), data)


def test_a_registered_judge_is_sent_as_the_registry_found_it(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = list[JudgementRequest]()

    def ask(_: str, asked: JudgementRequest, *__: object) -> Judgements:
        sent.append(asked)
        return Judgements(judge="reward:judge@1.2.0", facts={}, scores=(0.5,) * len(asked.texts))

    monkeypatch.setenv(SERVICE_VARIABLE, "http://127.0.0.1:1")
    monkeypatch.setattr("services.trainer.judging.reward_judge.ask", ask)
    adapter = ArtifactRef(uri="/artifacts/judge", sha256="a" * 64, size=1)
    facts = {"judge_reference": "judge@candidate", "judge_version": "judge@1.2.0"}
    results = {"resolve-judge": StepResult(outputs={"adapter": adapter}, facts=facts)}
    reward = {"kind": "judge", "feedback": {"judge": {"reward_model": "judge@candidate"}}}
    settings = TrainSettings.model_validate({"base_model": str(base), "grpo": {"rewards": [reward]}})
    online = settings.grpo
    assert online is not None
    found = judges_of(context_of(tmp_path, settings, results=results), online.rewards, "grpo", probe=True)
    assert found["judge"].identity.judge == "reward:judge@1.2.0"
    assert sent[0].registered == RegisteredJudge(id="judge@1.2.0", adapter=adapter)


@pytest.fixture
def proxy(address: str, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingProxy]:
    """Stand between the trainer and the feedback service."""
    with failing_proxy(address) as proxy:
        monkeypatch.setenv(SERVICE_VARIABLE, proxy.address)
        yield proxy


def test_a_feedback_service_that_never_answers_is_asked_three_times(
    tmp_path: Path, base: Path, data: ArtifactRef, chat: Chat, proxy: FailingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_SPARE_SECONDS", 0.1)
    proxy.treat = lambda number: "left waiting"
    with pytest.raises(TooFewScores, match=r"grpo\.rewards\.0\.feedback is away: .*did not answer in time"):
        learn(tmp_path, settings(base, chat, timeout_seconds=0.1), data)
    assert proxy.requests == 3


def test_requests_that_are_cut_off_are_sent_again_and_without_the_service_the_step_ends_and_a_later_attempt_goes_on(
    tmp_path: Path, base: Path, data: ArtifactRef, chat: Chat, proxy: FailingProxy
) -> None:
    whole = learn(tmp_path / "whole", settings(base, chat), data)
    chat.asked.clear()
    proxy.requests = 0
    proxy.treat = lambda number: "passed on" if number in (1, 4, 5) else "cut off"
    with pytest.raises(TooFewScores, match=r"16 of 16 answers of a step have no score.*cannot be reached"):
        learn(tmp_path, settings(base, chat), data)
    assert proxy.requests == 1 + 3 + 1 + 3, "who it is, the first step with two retries, the second, the third with two"
    known = questions(chat)
    proxy.treat = lambda number: "passed on"
    chat.asked.clear()
    resumed = learn(tmp_path, settings(base, chat), data)
    assert not known & questions(chat), "scores that are known are not asked again"
    assert "rewards_missing" not in resumed.facts
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def test_an_endpoint_that_has_gone_since_the_data_were_prepared_is_no_fault_of_the_request(
    tmp_path: Path, base: Path, data: ArtifactRef, chat: Chat
) -> None:
    judge = {"kind": "openai", "endpoint": "http://127.0.0.1:9/v1", "model": "judge"}
    with pytest.raises(TooFewScores, match=r"16 of 16 answers of a step have no score.*the judge cannot be reached"):
        learn(tmp_path, settings(base, chat, judge=judge), data)
