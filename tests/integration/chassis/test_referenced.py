"""Which artifacts the rows of the services reference: each row all that it names, but for those that have ended or were deleted long enough."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from schemas.steps import SERVICES
from services.chassis.kernel import store
from services.chassis.replay.referenced import ReferencedArtifacts
from services.cli.retention import unreferenced_artifacts
from services.cli.serve import build, settings_of
from tests.databases import provide

DAY = 86_400.0
NUMBERS = iter(range(10**6))


def digest() -> str:
    """Return another digest each time."""
    return f"{next(NUMBERS):064x}"


class Rows:
    """The database of one service."""

    def __init__(self, referenced: ReferencedArtifacts) -> None:
        self.referenced = referenced

    async def insert(self, table: str, **columns: Any) -> None:
        values = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in columns.items()}
        ago = {name: value for name, value in values.items() if name.endswith("_at")}
        places = (f"now() - make_interval(days => {ago[name]})" if name in ago else f":{name}" for name in values)
        names = ", ".join(f'"{name}"' for name in values)
        engine = store.connect(self.referenced.reading.database_url, pool_size=1)
        async with engine.begin() as connection:
            statement = f"INSERT INTO {table} ({names}) VALUES ({', '.join(places)})"
            await connection.execute(text(statement), {name: value for name, value in values.items() if name not in ago})
        await engine.dispose()

    async def need(self, *digests: str) -> list[bool]:
        found = await self.referenced.digests(30 * DAY)
        return [one in found for one in digests]


@pytest.fixture
async def rows_of(database_url: str, tmp_path: Path, unique: Callable[[str], str]) -> Callable[[str], Any]:
    async def made(service: str) -> Rows:
        own = f"{database_url.rpartition('/')[0]}/{unique(service).replace('-', '_')}"
        places: dict[str, Any] = {f"{service}_database_url": own, "database_url": database_url, "home": tmp_path}
        settings = settings_of(service, **places)
        await provide(settings, service)
        return Rows(build(service, settings).referenced)

    return made


def job(*outputs: dict[str, str]) -> dict[str, Any]:
    """The state of a job whose steps made these outputs, by name."""
    made = [{name: {"uri": "/a", "sha256": sha256, "size": 1} for name, sha256 in one.items()} for one in outputs]
    return {
        "attempts": {
            f"step-{number}": {
                "1": {"outcome": {"kind": "completed", "result": {"outputs": one, "inputs": {"adapter": digest()}}}}
            }
            for number, one in enumerate(made)
        }
    }


async def test_a_job_that_ended_long_ago_and_cannot_be_retried_holds_its_reports_and_not_its_weights(
    rows_of: Callable[[str], Any],
) -> None:
    rows = await rows_of("orchestrator")
    ends = (("completed", 31), ("cancelled", 31), ("completed", 29), ("failed", 31), ("running", None))
    made = {end: {"adapter": digest(), "report": digest()} for end in ends}
    for number, ((status, ended_at), outputs) in enumerate(made.items()):
        ended = {} if ended_at is None else {"ended_at": ended_at}
        whole = {"model": digest()}
        outputs |= whole
        reported = {name: outputs[name] for name in ("adapter", "report")}
        await rows.insert("job", key=f"job-{number}", status=status, state=job(reported, whole), **ended)
    for (status, ended_at), outputs in made.items():
        kept = (status, ended_at) not in ends[:2]
        needed = await rows.need(outputs["report"], outputs["adapter"], outputs["model"])
        assert needed == [True, kept, kept], (status, ended_at)
    shared = made["completed", 31]["adapter"]
    await rows.insert("job", key="job-9", status="running", state=job({"adapter": shared}))
    assert await rows.need(shared) == [True]


async def test_an_executor_holds_what_open_attempts_read_what_waits_in_its_outbox_and_dead_letters(
    rows_of: Callable[[str], Any],
) -> None:
    opened, ended, waiting, parked, discarded, unknown = (digest() for _ in range(6))
    rows = await rows_of("feedback")
    await rows.insert("attempt", key="a/b/1", status="running", state={"requested": {"inputs": {"x": {"sha256": opened}}}})
    await rows.insert("attempt", key="a/b/2", status="completed", state={"result": {"outputs": {"x": {"sha256": ended}}}})
    await rows.insert("attempt", key="a/b/3", status=None, state={"requested": {"inputs": {"x": {"sha256": unknown}}}})
    await rows.insert(
        "outbox", aggregatetype="t", aggregateid="k", type="StepCompleted", payload=json.dumps({"sha256": waiting})
    )
    letter = {"topic": "t", "partition": 0, "headers": {}, "error": "e", "appended_at": 1}
    await rows.insert("dead_letter", **letter, offset=1, state="failed", value=json.dumps({"sha256": parked}).encode())
    await rows.insert(
        "dead_letter", **letter, offset=2, state="discarded", value=json.dumps({"sha256": discarded}).encode()
    )
    needed = await rows.need(opened, ended, unknown, waiting, parked, discarded)
    assert needed == [True, False, True, True, True, False]


async def test_the_registry_holds_data_sets_ledgers_open_deployments_and_what_was_not_deleted_long_ago(
    rows_of: Callable[[str], Any],
) -> None:
    rows = await rows_of("registry")
    names = ("live", "archived", "fresh", "old", "parent", "stored", "ledger", "read", "served", "retired", "table")
    of = {name: digest() for name in names}

    async def version(key: str, state: str, deleted_at: str | None = None, **lineage: str) -> None:
        made = (
            {"model": key, "version": "1.0.0", "artifact": {"sha256": of[key]}, "lineage": lineage}
            if key in of
            else {"lineage": lineage}
        )
        columns = {"model": key, "version": "1.0.0"}
        await rows.insert(
            "registration", key=key, **columns, state={"state": state, "deleted_at": deleted_at, "registered": made}
        )

    await version("live", "live")
    await version("archived", "archived")
    await version("fresh", "deleted", "2999-01-01T00:00:00Z")
    await version("old", "deleted", "2020-01-01T00:00:00Z")
    await version("parent", "deleted", "2020-01-01T00:00:00Z")
    await version("child", "archived", started_from="parent@1.0.0")
    await version("orphan", "deleted", "2020-01-01T00:00:00Z", started_from="old@1.0.0")
    await rows.insert("dataset", key="d", state={"registered": {"artifact": {"sha256": of["stored"]}}})
    used = {"use": {"ledger": {"sha256": of["ledger"]}, "inputs": [of["read"]], "outputs": []}}
    await rows.insert("data_use", key="u", state=used)
    await rows.insert("deployment", key="s", open=True, state={"wish": {"artifact": {"sha256": of["served"]}}})
    await rows.insert("deployment", key="r", open=False, state={"wish": {"artifact": {"sha256": of["retired"]}}})
    await rows.insert("gate_check", key="g", state={"some": {"new": {"field": f"s3://b/{of['table']}"}}})
    needed = dict(zip(of, await rows.need(*of.values()), strict=True))
    assert [name for name, is_needed in needed.items() if not is_needed] == ["old", "read", "retired"]


def test_artifacts_are_removed_only_by_who_can_ask_every_service(database_url: str, tmp_path: Path) -> None:
    services = [build(name, settings_of(name, database_url=database_url, home=tmp_path)) for name in SERVICES]
    unreferenced = unreferenced_artifacts(services)
    assert unreferenced is not None
    assert {one.service for one in unreferenced.services} == set(SERVICES)
    assert unreferenced_artifacts(services[1:]) is None
    assert [one.service for one in unreferenced.services if "attempt" in one.referenced_by] == [
        name for name in SERVICES if name != "orchestrator"
    ]
