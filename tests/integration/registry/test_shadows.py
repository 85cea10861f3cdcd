"""Answers of a canary are compared with those of the version before by a job of the feedback service, on real Kafka and PostgreSQL.

The test plays the feedback service: it reads the job that the registry requests, and says what the judge found.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from schemas.artifacts import ArtifactRef
from schemas.deployments import Check, DeploymentAdvanced, DeploymentRolledBack, DeploymentShadowed
from schemas.jobs import StepCompleted, StepResult
from schemas.lines import AnswerPair
from schemas.requests import JobRequest, JobRequested
from schemas.topics import REQUESTS
from services.chassis.storage.artifacts.pairs import pairs_store
from services.chassis.storage.json_lines import read_lines
from services.chassis.storage.retention.policy import RetentionRule
from services.orchestrator.domain.planning import plan
from services.registry.shadowing.retention import OldPairs
from tests.deploying import calling, deploy, registered, serves, shown, told
from tests.log import event_of
from tests.model_servers import StandIn
from tests.registry import Registry, tail
from tests.toy import until

SHADOWED: dict[str, Any] = {
    "strategy": "canary",
    "steps": [50],
    "step_seconds": 0,
    "least_requests": 5,
    "slower_by": 1000,
    "bake_seconds": 0,
    "shadow": {
        "share": 1.0,
        "least_pairs": 5,
        "most_pairs": 20,
        "feedback": {"judge": {"kind": "openai", "model": "judge", "endpoint": "https://judge.example/v1"}},
    },
}


class Requests:
    """The jobs that were requested for deployments of a test."""

    def __init__(self) -> None:
        self.seen: list[JobRequested] = []

    def of(self, registry: Registry) -> list[JobRequested]:
        return [one for one in self.seen if one.job_id.startswith(registry.job("support"))]

    async def about(self, registry: Registry, version: str) -> tuple[JobRequest, ArtifactRef]:
        """Wait for a job that judges answers of a version, and return it as the orchestrator plans it."""

        def found() -> list[tuple[JobRequest, ArtifactRef]]:
            jobs = [JobRequest.model_validate(one) for one in self.jobs(registry)]
            pairs = [(job, job.comparison.pairs) for job in jobs if job.comparison is not None]
            return [one for one in pairs if pairs_of(registry, one[1])[0].second_version.endswith(f"@{version}")]

        await until(found, what=lambda: told_since(registry))
        assert [step.kind for step in plan(found()[0][0])] == ["compare"]
        return found()[0]

    def jobs(self, registry: Registry) -> list[Mapping[str, Any]]:
        """Return the requests, each once; one that is repeated is the same."""
        found = dict[str, Mapping[str, Any]]()
        for one in self.of(registry):
            assert found.setdefault(one.job_id, one.request) == one.request
        return list(found.values())


@asynccontextmanager
async def requests(kafka: str) -> AsyncIterator[Requests]:
    found, consumer = Requests(), await tail(kafka, REQUESTS.name)

    async def listen() -> None:
        async for record in consumer:
            event = event_of(record)
            if event is not None and isinstance(event.data, JobRequested):
                found.seen.append(event.data)

    listening = asyncio.create_task(listen())
    try:
        yield found
    finally:
        listening.cancel()
        await consumer.stop()


def result(job: JobRequest, wins: int, losses: int) -> StepCompleted:
    """Return what the feedback service says of a job."""
    metrics: dict[str, float | None] = {
        "pairs": float(wins + losses), "second_better": float(wins), "first_better": float(losses), "ties": 0.0, "unjudged": 0.0,
    }  # fmt: skip
    facts = {"judge": "openai:judge", "rubric_sha256": "a" * 64}
    said = StepResult(metrics=metrics, facts=facts)
    return StepCompleted(job_id=job.job_id, step="compare", attempt=1, kind="compare", result=said)


def pairs_of(registry: Registry, pairs: ArtifactRef) -> list[AnswerPair]:
    folder = pairs_store(registry.settings.artifacts_uri).fetch(pairs, Path("/nowhere"))
    return read_lines(folder / AnswerPair.FILE, AnswerPair)


def judge_score(event: DeploymentAdvanced | DeploymentRolledBack) -> Check:
    assert event.analysis is not None
    (check,) = [check for check in event.analysis.checks if check.name == "judge_score"]
    return check


async def test_a_canary_gets_on_when_a_judge_prefers_its_answers_and_goes_back_when_not_also_if_the_registry_dies_meanwhile(
    kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    driver = StandIn()
    registry = Registry(kafka, database_url, tmp_path_factory.mktemp("registry"), lambda: driver)
    async with requests(kafka) as jobs:
        async with registry.running():
            await registered(registry, "job-1", "job-2", "job-3")
            await deploy(registry, "1.0.0")
            await serves(registry, "1.0.0")
            for version in ("2.0.0", "3.0.0"):
                driver.of(version).says = f"I am {version}."
            await deploy(registry, "2.0.0", rollout=SHADOWED)
            async with calling(registry, 2) as callers:
                job, pairs = await jobs.about(registry, "2.0.0")
                found = pairs_of(registry, pairs)
                assert len(found) == 5
                model = registry.name("router")
                assert {(one.first, one.second, one.second_version) for one in found} == {
                    (f"{model}@1.0.0 hears Hello", "I am 2.0.0.", f"{model}@2.0.0")
                }
                expected = ["Requested 2.0.0", "Advanced 2.0.0", "Shadowed 2.0.0"]
                await until(lambda: told(registry)[2:] == expected, what=lambda: told(registry))
            assert callers.failed == []
            assert job.base_model == "job-2"
            assert not any("hears Hello" in event.data.model_dump_json() for event in registry.said)
        # The registry is away while the judge answers, and a second answer of the same job comes late.
        await registry.ask(result(job, 4, 1))
        async with registry.running():
            await registry.ask(result(job, 0, 5))
            async with calling(registry, 2) as callers:
                await serves(registry, "2.0.0")
                await deploy(registry, "3.0.0", rollout=SHADOWED)
                worse, _ = await jobs.about(registry, "3.0.0")
                await registry.ask(result(worse, 0, 20))
                await until(lambda: "RolledBack 3.0.0" in told_since(registry), what=lambda: told_since(registry))
            assert callers.failed == []
            assert await registry.differences() == 0
            assert (await shown(registry))["given_up"]["reason"] == "AnalysisFailed"
            await until(lambda: no_pair_is_stored(registry))
    advanced = [event.data for event in registry.said if isinstance(event.data, DeploymentAdvanced)]
    score = judge_score(next(one for one in advanced if one.version == "2.0.0" and one.analysis is not None))
    assert (score.verdict, score.value, score.requests) == ("passed", 0.8, 5)
    assert score.judged is not None
    assert (score.judged.judge, score.judged.rubric_sha256, score.judged.pairs) == (
        "openai:judge",
        "a" * 64,
        (pairs.sha256,),
    )
    (back,) = [event.data for event in registry.said if isinstance(event.data, DeploymentRolledBack)]
    assert judge_score(back).verdict == "failed"
    given = {event.data.pairs.sha256 for event in registry.said if isinstance(event.data, DeploymentShadowed)}
    assert await removed(registry, timedelta(days=1)) == 0
    assert await removed(registry, timedelta(0)) == len(given) >= 2


async def no_pair_is_stored(registry: Registry) -> bool:
    """Whether the database has no answer of a caller."""
    connection = await asyncpg.connect(registry.settings.database_url_for("registry"))
    try:
        return bool(await connection.fetchval("SELECT count(*) FROM operational.shadow_pair") == 0)
    finally:
        await connection.close()


async def removed(registry: Registry, age: timedelta) -> int:
    """Apply the retention policy to the answers that judges were given, and return how many artifacts went."""
    store = pairs_store(registry.settings.artifacts_uri)
    return (await OldPairs(store, RetentionRule(age)).apply(dry=False)).count


def told_since(registry: Registry) -> list[str]:
    """What was published about the deployment of this test in all its lives, in words."""
    subject = f"deployments/{registry.job('support')}"
    events = [event for event in registry.said if event.subject == subject]
    return [f"{event.type.removeprefix('Deployment')} {getattr(event.data, 'version', '')}" for event in events]
