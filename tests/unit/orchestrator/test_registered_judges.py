"""A registered reward model judges as the registry found it when the job began, wherever an alias of it moves."""

from typing import Any

from schemas.artifacts import ArtifactRef
from schemas.jobs import JobRejected, StepCompleted, StepRequested, StepResult
from schemas.judgements import registered_judge
from schemas.recipes.feedback import JudgeSettings
from schemas.steps import ResolveSettings
from tests.unit.orchestrator.scenario import JobScenario, names, one_request

ADAPTER = ArtifactRef(uri="/artifacts/judge", sha256="a" * 64, size=1)
CANDIDATE = {"reward_model": "judge@candidate"}
FOUND = {"judge_reference": "judge@candidate", "judge_version": "judge@1.2.0"}
REWARDS = {
    "rewards": [
        {"kind": "judge", "feedback": {"judge": CANDIDATE}},
        {"kind": "judge", "name": "other", "feedback": {"judge": {"reward_model": "other@1.0.0"}}},
        {"kind": "judge", "name": "folder", "feedback": {"judge": {"reward_model": "/models/judge"}}},
    ]
}


def looked_up(decided: list[Any]) -> list[ResolveSettings]:
    settings = [one.settings for one in decided if isinstance(one, StepRequested)]
    return [one for one in settings if isinstance(one, ResolveSettings)]


def found(job: JobScenario, step: str, facts: dict[str, str]) -> list[Any]:
    result = StepResult(outputs={"adapter": ADAPTER}, facts=facts)
    return list(job._executor(StepCompleted, step, 1, result=result))


def test_the_registry_finds_it_before_it_judges_and_the_step_that_asks_it_reads_what_was_found() -> None:
    job = JobScenario()
    decided = job.requested(pipeline="rlaif", feedback={"judge": CANDIDATE})
    assert looked_up(decided) == [
        ResolveSettings(base_model="judge@candidate", purpose="scores", field="feedback.judge.reward_model")
    ]
    found(job, "resolve-judge", FOUND)
    job.completed("prepare")
    score = one_request(job.completed("evaluate-base"))
    judge = registered_judge(JudgeSettings.model_validate(CANDIDATE), score.results)
    assert score.kind == "score"
    assert judge is not None
    assert (judge.id, judge.adapter, judge.model) == ("judge@1.2.0", ADAPTER, None)


def test_each_version_that_rewards_answers_is_found_once_before_prepare_lets_it_score() -> None:
    job = JobScenario()
    decided = job.requested(pipeline="grpo", grpo=REWARDS)
    assert names(decided)[1:] == ["StepRequested.v2 resolve-judge/1", "StepRequested.v2 resolve-judge-2/1"]
    assert [one.field for one in looked_up(decided)] == [
        f"grpo.rewards.{number}.feedback.judge.reward_model" for number in (0, 1)
    ]
    assert found(job, "resolve-judge", FOUND) == []
    prepare = one_request(found(job, "resolve-judge-2", {"judge_reference": "other@1.0.0", "judge_version": "other@1.0.0"}))
    assert (prepare.step, set(prepare.results)) == ("prepare", {"resolve-judge", "resolve-judge-2"})


def test_a_folder_needs_no_registry() -> None:
    decided = JobScenario().requested(pipeline="rlaif", feedback={"judge": {"reward_model": "./judge@1"}})
    assert names(decided)[1:] == ["StepRequested.v2 prepare/1"]


def test_what_the_job_starts_from_and_what_judges_are_told_apart() -> None:
    job = JobScenario()
    decided = job.requested(base_model="router@1.0.0", pipeline="grpo", grpo=REWARDS)
    assert names(decided)[1:] == [
        "StepRequested.v2 resolve-judge/1", "StepRequested.v2 resolve-judge-2/1", "StepRequested.v2 resolve/1",
    ]  # fmt: skip
    assert [one.purpose for one in looked_up(decided)] == ["scores", "scores", "answers"]


def test_a_step_of_the_request_does_not_take_the_name_of_the_one_that_is_added() -> None:
    steps = [
        {"name": "resolve-judge", "kind": "prepare"},
        {"name": "evaluate", "kind": "evaluate", "inputs": {"dataset": "resolve-judge.dataset"}},
        {"name": "score", "kind": "score", "inputs": {"predictions": "evaluate.predictions"}},
    ]
    (rejected,) = JobScenario().requested(pipeline=steps, feedback={"judge": CANDIDATE})
    assert isinstance(rejected, JobRejected)
    assert [reason.field for reason in rejected.reasons] == ["pipeline.0.name"]
