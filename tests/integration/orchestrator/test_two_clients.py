"""Other clients place a job id where they like and use an event id as they like: what was accepted stays so, and the log proves it."""

from typing import Any

from sqlalchemy import text

from schemas.envelope import Event
from schemas.requests import JobCancelRequested, JobRequested
from schemas.topics import REQUESTS
from services.chassis.kafka.publisher import outside_event
from services.chassis.replay.rebuild import rebuild, verify
from tests.orchestrator import Orchestrator
from tests.toy import until

IDS = range(6)


def requested(request: dict[str, Any], event_id: str | None = None) -> Event:
    event = outside_event(
        "counter", JobRequested(job_id=request["job_id"], request=request), correlation_id=request["job_id"]
    )
    return event._replace(id=event_id or event.id)


async def the_log_says_the_same(orchestrator: Orchestrator) -> None:
    assert orchestrator.runtime is not None
    assert (await verify(orchestrator.runtime.projection)).differences == 0
    rebuilt = await rebuild(orchestrator.runtime.projection)
    assert (rebuilt.differences, rebuilt.rows > 0) == (0, True)


async def test_an_accepted_request_is_the_request_although_another_lies_on_another_partition(
    orchestrator: Orchestrator,
) -> None:
    mine = [orchestrator.request(f"moved-{number}") for number in IDS]
    for number, request in enumerate(mine):
        await orchestrator.publish(requested(request), partition=number)
        await orchestrator.status(f"moved-{number}", "running")
    other = [requested({**request, "priority": 1}) for request in mine]
    for number, event in enumerate(other):
        await orchestrator.publish(event, partition=(number + 3) % REQUESTS.partitions)
        await orchestrator.publish(requested(mine[number]), partition=(number + 1) % REQUESTS.partitions)

    async def all_read() -> bool:
        found = [(await orchestrator.job(f"moved-{number}"))["conflicts"] for number in IDS]
        return found == [[event.id] for event in other]

    async def answers() -> set[tuple[int, int]]:
        again = [await orchestrator.http.post("/training/start", json=request) for request in mine]
        theirs = [await orchestrator.http.post("/training/start", json={**request, "priority": 1}) for request in mine]
        return {(one.status_code, two.status_code) for one, two in zip(again, theirs, strict=True)}

    await until(all_read)
    assert await answers() == {(202, 409)}
    await the_log_says_the_same(orchestrator)
    assert await answers() == {(202, 409)}


async def test_a_job_whose_request_is_not_kept_is_still_listed_shown_and_answered(orchestrator: Orchestrator) -> None:
    """The decision carries the whole request, and a job remembers few requests of a flood."""
    assert orchestrator.runtime is not None
    request = orchestrator.request("without", requester="without")
    before = (await orchestrator.http.post("/training/start", json=request)).json()
    lost = "UPDATE job SET state = state - 'wish', requested_at = NULL, requester = NULL, model = NULL WHERE key = :job_id"
    async with orchestrator.runtime.engine.begin() as connection:
        await connection.execute(text(lost), {"job_id": request["job_id"]})
    again = await orchestrator.http.post("/training/start", json=request)
    other = await orchestrator.http.post("/training/start", json={**request, "priority": 1})
    assert (again.status_code, other.status_code) == (202, 409)
    assert again.json() == {**before, "requested_at": before["accepted_at"]}
    assert (await orchestrator.http.get(f"/training/{request['job_id']}")).json()["request"]["requester"] == "without"
    await orchestrator.http.post(f"/training/{request['job_id']}/cancel")
    await until(lambda: orchestrator.status("without", "cancelled"))
    listed = (await orchestrator.http.get("/training", params={"requester": "without"})).json()["items"]
    assert [(job["job_id"], job["pipeline"]) for job in listed] == [(request["job_id"], before["pipeline"])]
    assert (await rebuild(orchestrator.runtime.projection)).differences == 1


async def test_an_event_id_that_is_used_again_is_another_event(orchestrator: Orchestrator) -> None:
    """A producer that counts from 1 after each restart, and one that uses the job's id as event id."""
    for number in IDS:
        await orchestrator.publish(requested(orchestrator.request(f"old-{number}"), str(number)), partition=number)
        beside = number if number % 2 else (number + 3) % REQUESTS.partitions
        await orchestrator.publish(requested(orchestrator.request(f"new-{number}"), str(number)), partition=beside)
    for number in IDS:
        await orchestrator.status(f"old-{number}", "running")
        await orchestrator.status(f"new-{number}", "running")

    whole = orchestrator.request("whole")
    await orchestrator.publish(requested(whole, "the-id"), partition=2)
    await orchestrator.publish(requested({**whole, "priority": 1}, "the-id"), partition=2)
    await until(lambda: _conflicts(orchestrator, "whole", ["the-id"]))
    cancel = outside_event("counter", JobCancelRequested(job_id=whole["job_id"], reason="enough"), correlation_id="")
    await orchestrator.publish(cancel._replace(id="the-id"), partition=2)
    await orchestrator.status("whole", "cancelling", "cancelled")
    await the_log_says_the_same(orchestrator)


async def _conflicts(orchestrator: Orchestrator, name: str, ids: list[str]) -> bool:
    return bool((await orchestrator.job(name)).get("conflicts") == ids)
