"""Gates of aliases on real Kafka and PostgreSQL: a worse version does not get through, whoever asks, and the log says why."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.models import AliasPolicySet, AliasRefused, GatesChecked, ModelPromoted
from tests.registry import Registry

GATE = {"metric": "exact_match", "comparison": "at_least", "worse_by": 0.01}


@pytest.fixture(scope="module")
async def running(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("registry")).running() as registry:
        yield registry


@pytest.fixture
def registry(running: Registry) -> Registry:
    """The one that runs, with names of this test's own."""
    running.begin()
    return running


async def registered(registry: Registry, job: str, quality: float, **fields: Any) -> None:
    step = registry.step(job, "router", registry.adapter(job), metrics={"exact_match": quality}, **fields)
    await registry.ask(step)
    await registry.result(step)


async def test_a_job_with_a_worse_version_does_not_move_the_alias_and_a_person_only_by_another_policy(
    registry: Registry,
) -> None:
    await registered(registry, "job-1", 0.9)
    name = registry.name("router")
    path = f"/models/{name}/aliases/candidate"
    ruled = await registry.http.put(f"{path}/policy", json={"gates": [GATE], "by": "ana", "reason": "It only gets better."})
    assert ruled.status_code == 200, ruled.text
    assert ruled.json()["policy"]["gates"][0]["worse_by"] == 0.01
    await registered(registry, "job-2", 0.8)
    *_, rules, version, checked, refused = await registry.about("router", 6)
    assert isinstance(rules.data, AliasPolicySet)
    assert isinstance(checked.data, GatesChecked)
    assert isinstance(refused.data, AliasRefused)
    assert (checked.data.verdict, checked.data.holder, checked.data.gates[0].holder_value) == ("failed", "1.0.0", 0.9)
    assert (refused.data.check, refused.data.reasons[0].field) == (checked.data.check, "gates.exact_match")
    assert {version.correlation_id, checked.correlation_id, refused.correlation_id} == {registry.job("job-2")}

    by_hand = {"version": "1.0.1", "by": "ana", "reason": "I want it.", "accept_inconclusive": True}
    answer = await registry.http.put(path, json=by_hand)
    assert (answer.status_code, answer.json()["reasons"][0]["field"]) == (409, "gates.exact_match")
    assert (await registry.http.get(f"/models/{name}@candidate")).json()["version"] == "1.0.0"
    found = (await registry.http.get(f"/models/{name}/checks?alias=candidate&version=1.0.1")).json()
    assert [(check["verdict"], check["by"]) for check in found["items"]] == [("failed", "ana"), ("failed", registry.mark)]

    gone = await registry.http.delete(f"{path}/policy?by=ana&reason=The+gate+was+wrong.")
    assert gone.json()["policy"]["gates"] == []
    assert (await registry.http.put(path, json=by_hand)).json()["aliases"] == {"candidate": "1.0.1"}
    back = await registry.http.post(f"{path}/rollback", json={"reason": "It was right."})
    assert back.json()["aliases"] == {"candidate": "1.0.0"}


async def test_what_is_inconclusive_waits_for_a_person_who_accepts_it(registry: Registry) -> None:
    await registered(registry, "job-1", 0.9)
    path = f"/models/{registry.name('router')}/aliases/production"
    gates = [{**GATE, "rows": 100}]
    assert (await registry.http.put(f"{path}/policy", json={"gates": gates, "reason": "r"})).status_code == 200
    waits = await registry.http.put(path, json={"version": "1.0.0", "reason": "The first one."})
    assert waits.status_code == 409
    assert "accept_inconclusive" in waits.json()["reasons"][0]["remedy"]
    silent = await registry.http.put(path, json={"version": "1.0.0", "accept_inconclusive": True})
    assert (silent.status_code, silent.json()["reasons"][0]["field"]) == (422, "reason")
    accepted = {"version": "1.0.0", "reason": "The first one.", "accept_inconclusive": True}
    moved = await registry.http.put(path, json=accepted)
    assert moved.json()["aliases"]["production"] == "1.0.0"
    assert moved.json()["moves"][0]["verdict"] == "inconclusive"
    promoted = (await registry.about("router", 6))[-1].data
    assert isinstance(promoted, ModelPromoted)
    assert promoted.registered_by == f"{registry.job('job-1')}/register"


async def test_a_protected_alias_is_moved_by_who_saw_where_it_stands_and_says_why(registry: Registry) -> None:
    await registered(registry, "job-1", 0.9)
    await registered(registry, "job-2", 0.9, alias=None)
    path = f"/models/{registry.name('router')}/aliases/candidate"
    rules = await registry.http.put(f"{path}/policy", json={"protected": True, "reason": "Customers see it."})
    await registered(registry, "job-3", 0.9)
    refused = (await registry.about("router", 6))[-1].data
    assert isinstance(refused, AliasRefused)
    target, seen = {"version": "1.0.1", "reason": "Better."}, {"If-Match": rules.headers["etag"]}
    assert (await registry.http.put(path, json=target)).status_code == 428
    assert (await registry.http.put(path, json={"version": "1.0.1"}, headers=seen)).status_code == 422
    assert (await registry.http.put(f"{path}/policy", json={"reason": "No more."})).status_code == 428
    assert (await registry.http.delete(path, headers=seen)).status_code == 422
    assert (await registry.http.put(path, json=target, headers=seen)).json()["aliases"] == {"candidate": "1.0.1"}
    assert (await registry.http.put(path, json=target, headers=seen)).status_code == 412


async def test_what_one_person_asks_for_a_second_one_approves_once_while_nothing_else_moved(registry: Registry) -> None:
    await registered(registry, "job-1", 0.9)
    await registered(registry, "job-2", 0.9)
    name = registry.name("router")
    path = f"/models/{name}/aliases/candidate"
    rules = {"approval": True, "protected": False, "by": "ana", "reason": "Two people look."}
    assert (await registry.http.put(f"{path}/policy", json=rules)).json()["policy"]["approval"] is True
    await registered(registry, "job-3", 0.9)
    target = {"version": "1.0.0", "by": "ana", "reason": "The older one."}
    waits = await registry.http.put(path, json=target)
    assert (waits.status_code, waits.json()["aliases"]) == (202, {"candidate": "1.0.1"})
    assert (await registry.http.put(path, json={**target, "by": "unknown"})).json()["reasons"][0]["field"] == "by"
    waiting = waits.json()["waiting"]["candidate"]
    assert (waiting["version"], waiting["by"]) == ("1.0.0", "ana")
    answer = {"request": waiting["id"], "by": "ANA", "reason": "I say so."}
    refused = await registry.http.post(f"{path}/approve", json=answer)
    assert (refused.status_code, refused.json()["reasons"][0]["field"]) == (422, "by")

    approve, decline = f"{path}/approve", f"{path}/decline"
    races = [approve, approve, decline, decline]
    said = await asyncio.gather(*(registry.http.post(url, json={**answer, "by": f"bo {n}"}) for n, url in enumerate(races)))
    won = [one.status_code for one in said].index(200)
    assert sorted(one.status_code for one in said) == [200, 422, 422, 422]
    assert all("waits for no approval" in one.text for n, one in enumerate(said) if n != won)
    listed = (await registry.http.get(f"/models/{name}/requests?alias=candidate")).json()["items"]
    outcome = {approve: "approved", decline: "declined"}[races[won]]
    assert [(one["version"], one["status"]) for one in listed] == [("1.0.0", outcome), ("1.0.2", "superseded")]
    assert listed[0]["decided_by"] == f"bo {won}"
    assert listed[1]["id"] == f"{registry.job('job-3')}/register"
    assert (await registry.http.get(f"/models/{name}/requests?status=waiting")).json()["items"] == []

    await registry.http.put(path, json={**target, "version": "1.0.2"})
    (waiting,) = (await registry.http.get(f"/models/{name}/requests?status=waiting")).json()["items"]
    gone = await registry.http.delete(f"{path}/policy?by=ana&reason=Nobody+is+there.")
    assert gone.json()["policy"]["approval"] is False
    late = await registry.http.post(approve, json={"request": waiting["id"], "by": "bo"})
    assert (late.status_code, late.json()["reasons"][0]["field"]) == (422, "request")
    assert (await registry.http.post(approve, json={**answer, "request": "none"})).status_code == 422
    assert (await registry.http.get(f"/models/{name}/requests?status=superseded&limit=1")).json()["items"][0][
        "id"
    ] == waiting["id"]
    assert await registry.differences() == 0


async def test_who_approves_a_move_of_a_protected_alias_names_the_request_and_no_state_of_the_aliases(
    registry: Registry,
) -> None:
    await registered(registry, "job-1", 0.9, alias=None)
    path = f"/models/{registry.name('router')}/aliases/production"
    rules = {"approval": True, "protected": True, "by": "ana", "reason": "Customers see it."}
    seen = {"If-Match": (await registry.http.put(f"{path}/policy", json=rules)).headers["etag"]}
    target = {"version": "1.0.0", "by": "ana", "reason": "The first."}
    assert (await registry.http.put(path, json=target)).status_code == 428
    waiting = (await registry.http.put(path, json=target, headers=seen)).json()["waiting"]["production"]
    moved = await registry.http.post(f"{path}/approve", json={"request": waiting["id"], "by": "bo"})
    assert (moved.status_code, moved.json()["aliases"], moved.json()["waiting"]) == (200, {"production": "1.0.0"}, {})
    assert moved.json()["moves"][0]["approved_by"] == "bo"


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"gates": [{**GATE, "threshold": 1}]}, "body.gates.0"),
        ({"gates": [{"metric": "loss", "comparison": "at_most"}]}, "body.gates.0"),
        ({"gates": [{**GATE, "comparison": "better"}]}, "body.gates.0.comparison"),
        ({"gates": [{**GATE, "metric": "a b"}]}, "body.gates.0.metric"),
        ({"gates": [{**GATE, "worse_by": -1}]}, "body.gates.0.worse_by"),
        ({"gates": [{**GATE, "row": 1}]}, "body.gates.0.row"),
        ({"gates": [{**GATE, "rows": 0}]}, "body.gates.0.rows"),
        ({"gates": [{**GATE, "agreement": 1.1}]}, "body.gates.0.agreement"),
        ({"gates": [GATE] * 21}, "body.gates"),
        ({"rollback_days": -1}, "body.rollback_days"),
        ({"reason": ""}, "body.reason"),
    ],
)
async def test_a_policy_that_is_none_is_refused_by_field(registry: Registry, policy: dict[str, object], field: str) -> None:
    answer = await registry.http.put("/models/any/aliases/production/policy", json={"reason": "r", **policy})
    assert answer.status_code == 422
    assert answer.json()["reasons"][0]["field"] == field


async def test_a_policy_of_no_model_or_of_a_name_that_no_alias_has_is_refused(registry: Registry) -> None:
    await registered(registry, "job-1", 0.9)
    assert (await registry.http.put("/models/nobody/aliases/a/policy", json={"reason": "r"})).status_code == 404
    odd = await registry.http.put(
        f"/models/{registry.name('router')}/aliases/v1/policy", json={"protected": True, "reason": "r"}
    )
    assert (odd.status_code, odd.json()["reasons"][0]["field"]) == (422, "alias")
