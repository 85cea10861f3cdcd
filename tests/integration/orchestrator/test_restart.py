"""What stays when the process does not: open jobs."""

from pathlib import Path

from tests.orchestrator import Orchestrator
from tests.toy import until


async def test_after_a_restart_open_jobs_go_on_where_they_were(kafka: str, database_url: str, tmp_path: Path) -> None:
    orchestrator = Orchestrator(kafka, database_url, tmp_path)
    job_id = orchestrator.prefix + "job"
    async with orchestrator.running():
        await orchestrator.ask(orchestrator.request("job"))
        await orchestrator.complete(job_id, "prepare")
        await until(lambda: orchestrator.asked(job_id, "train"))
    async with orchestrator.running():
        await orchestrator.complete(job_id, "train", "register")
        await orchestrator.status("job", "completed")
    history = [event for event in await orchestrator.log() if event.source == orchestrator.source]
    assert [event.type for event in history] == ["JobAccepted.v2", *["StepRequested.v2"] * 3, "JobCompleted"]
    assert [event.sequence for event in history] == [1, 2, 3, 4, 5]
