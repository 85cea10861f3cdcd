"""What an executor removes, and what it never does: whatever an attempt that has no outcome may still need."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.jobs import StepResult
from services.chassis.executor.attempts import attempt_ref
from services.chassis.executor.folders import checkpoints_of, event_files_of, log_of, temporary_of
from services.chassis.executor.retention import removers
from services.chassis.executor.runner import Completed
from services.chassis.executor.work import claim
from services.chassis.storage import metrics
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.retention.run import Removal, retain
from tests.executor import Executor, Script
from tests.steps import request
from tests.toy import until

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC).timestamp()


def old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(100))
    return path


def age(home: Path) -> None:
    for path in (home, *home.rglob("*")):
        os.utime(path, (LONG_AGO, LONG_AGO))


async def removed(executor: Executor, *, dry: bool = False, **policy: Any) -> dict[str, Removal]:
    settings = executor.settings.model_copy(update={"retention": RetentionSettings.model_validate(policy)})
    runtime = executor.runtime
    found = await retain(executor.name, removers(runtime.engine, settings, executor.name), dry=dry)
    assert not [one.error for one in found if one.error]
    return {one.kind: one for one in found if one.count}


@pytest.fixture
async def ended(executor: Executor) -> Executor:
    """One step that has ended, of job `ended`, and one that waits for a worker, of job `open`."""
    script = Script(Completed(StepResult()))
    script.gate.set()
    await executor.deliver(request("ended", step="a"))

    async def done() -> bool:
        return await executor.status(attempt_ref("ended", "a", 1)) == "completed"

    async with executor.working(script):
        await until(done)
    await executor.deliver(request("open", step="a", attempt=2))
    return executor


async def test_checkpoints_go_when_their_step_has_ended_and_those_an_open_attempt_may_go_on_from_stay(
    ended: Executor,
) -> None:
    home = ended.settings.home
    gone = old_file(checkpoints_of(home, "ended", "a") / "1" / "lease" / "step-1" / "weights")
    kept = old_file(checkpoints_of(home, "open", "a") / "1" / "lease" / "step-1" / "weights")
    others = old_file(checkpoints_of(home, "another service", "a") / "1" / "lease" / "answers.jsonl")
    age(home)
    others.write_bytes(bytes(100))  # somebody works there
    assert await removed(ended, checkpoints_days=0) == {}, "the step has ended just now, and may be tried again"
    before = metrics.REMOVED.labels(ended.name, "checkpoints")._value.get()
    await ended.execute(
        "UPDATE attempt SET state = state || '{\"ended_at\": \"2020-01-01T00:00:00Z\"}' WHERE job_id = 'ended'"
    )
    dry = await removed(ended, dry=True, checkpoints_days=0)
    assert (dry["checkpoints"].count, dry["checkpoints"].size) == (1, 100)
    assert gone.exists()
    assert (await removed(ended, checkpoints_days=0)).keys() == {"checkpoints"}
    assert [gone.exists(), kept.exists(), others.exists()] == [False, True, True]
    assert metrics.REMOVED.labels(ended.name, "checkpoints")._value.get() == before + 1
    age(home)
    assert (await removed(ended, checkpoints_days=0)).keys() == {"unknown-checkpoints", "empty-folders"}
    assert [kept.exists(), others.exists()] == [True, False]
    age(home)
    await removed(ended)
    assert {path.name for path in (home / "checkpoints").iterdir()} == {"another%20service", "open"}
    age(home)
    await removed(ended)
    assert [path.name for path in (home / "checkpoints").iterdir()] == ["open"]


async def test_logs_go_by_age_and_by_size_but_not_those_of_open_attempts(ended: Executor) -> None:
    home = ended.settings.home
    gone = old_file(log_of(home, ended.name, "ended", "a", 1))
    kept = old_file(log_of(home, ended.name, "open", "a", 2))
    others = old_file(log_of(home, "another", "ended", "a", 1))
    assert await removed(ended) == {}
    assert (await removed(ended, step_logs_mb=0))["step-logs"].count == 1
    assert [gone.exists(), kept.exists(), others.exists()] == [False, True, True]
    old_file(gone)
    age(home)
    assert (await removed(ended))["step-logs"].count == 1
    assert [gone.exists(), kept.exists(), others.exists()] == [False, True, True]


async def test_event_files_go_with_the_logs_of_their_step(ended: Executor) -> None:
    home = ended.settings.home
    gone = old_file(event_files_of(log_of(home, ended.name, "ended", "a", 1)) / "events.out.tfevents.1")
    kept = old_file(event_files_of(log_of(home, ended.name, "open", "a", 1)) / "events.out.tfevents.1")
    age(home)
    assert (await removed(ended))["step-logs"].count == 1
    assert [gone.exists(), kept.exists()] == [False, True]


async def test_scratch_files_go_when_their_lease_is_gone(ended: Executor) -> None:
    home = ended.settings.home
    lease = await claim(ended.runtime.engine, "abcdef0123456789", 600)
    assert lease is not None
    kept = old_file(temporary_of(home, ended.name, lease.token) / "scratch")
    gone = old_file(temporary_of(home, ended.name, "9876543210fedcba") / "scratch")
    age(home)
    assert (await removed(ended))["temporary"].count == 1
    assert [gone.exists(), kept.exists()] == [False, True]


async def test_an_executor_alone_never_touches_artifacts(ended: Executor) -> None:
    artifact = old_file(ended.settings.home / "artifacts" / "sha256" / "ab" / "ab12" / "adapter_model.safetensors")
    age(ended.settings.home)
    every: dict[str, Any] = {name: 0 for name in RetentionSettings.model_fields if name.endswith(("_days", "_mb", "_gb"))}
    await removed(ended, **{**every, "unknown_checkpoints_days": 1, "artifacts_days": 1 / 24})
    assert artifact.exists()
