"""The example service runs as its README says: a process of its own that answers a request on the log and can prove it."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2

from examples.tally import ask
from examples.tally.app import PREFIX
from schemas.jobs import JobRejected
from schemas.topics import JOBS
from services.devstack.ports import keep_ports
from services.devstack.stack import DevStack
from tests.log import read_events
from tests.toy import until

_SECONDS = 300.0


async def test_the_example_answers_a_request_on_the_log_and_its_table_is_what_the_log_says(
    kafka: str, dev_stack: DevStack, unique: Callable[[str], str], tmp_path: Path
) -> None:
    port, job_id = keep_ports(tmp_path / "ports.json", ["http"])["http"], unique(f"{PREFIX}job")
    environment = {
        **os.environ,
        "NEUROWEAVER_KAFKA_BOOTSTRAP": kafka,
        "NEUROWEAVER_DATABASE_URL": dev_stack.database_url,
        "NEUROWEAVER_HOME": str(tmp_path),
    }
    log = tmp_path / "tally.log"
    with log.open("w") as stream:
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.tally", env={**environment, "NEUROWEAVER_HTTP_PORT": str(port)}, stderr=stream
        )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=60) as http:

            async def ready() -> bool:
                assert service.returncode is None, log.read_text()
                try:
                    return (await http.get("/health/ready")).status_code == 200
                except httpx2.TransportError:
                    return False

            await until(ready, _SECONDS, what=log.read_text)
            asked = await asyncio.create_subprocess_exec(sys.executable, "-m", ask.__name__, job_id, env=environment)
            assert await asked.wait() == 0

            async def refused() -> bool:
                answer = await http.get(f"/tallies/{job_id}")
                return answer.status_code == 200 and answer.json()["refused"] == 1

            await until(refused, _SECONDS, what=log.read_text)
            answers = [event for event in await read_events(kafka, JOBS.name) if event.correlation_id == job_id]
            assert [(event.source, event.data, event.sequence) for event in answers] == [
                ("neuroweaver/tally", JobRejected(job_id=job_id, reasons=()), 1)
            ]

            assert (await http.post("/projections/tally/verify", json={})).status_code == 202

            async def verified() -> bool:
                run = (await http.get("/projections/tally")).json()["runs"][0]
                if run["state"] == "running":
                    return False
                assert (run["kind"], run["state"], run["result"]["differences"]) == ("verify", "done", 0), run
                return True

            await until(verified, _SECONDS, what=log.read_text)
        service.send_signal(signal.SIGTERM)
        await asyncio.wait_for(service.wait(), _SECONDS)
    finally:
        if service.returncode is None:
            service.kill()
    assert '"stopped"' in log.read_text()
