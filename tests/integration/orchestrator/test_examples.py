"""Whoever types an example of the docs in gets what the docs say, on any day."""

import json
import re
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas.generate.__main__ import ROOT
from schemas.generate.examples import JOB
from schemas.topics import REQUESTS
from tests.orchestrator import Orchestrator
from tests.toy import until

_BLOCK = re.compile(r"```(?:json)?\n(.*?)\n```", re.DOTALL)


def blocks(page: str) -> list[str]:
    """Every block of a page that speaks of the examples' job."""
    return [block for block in _BLOCK.findall(Path(ROOT / page).read_text()) if f'"{JOB}"' in block]


RECORDS = [block for block in blocks("docs/contract.md") if block.startswith("key: ")]
BODIES = [block for block in blocks("README.md") if block.startswith("{")]


def test_the_docs_have_examples_that_a_person_sends() -> None:
    assert len(RECORDS) == 2
    assert BODIES
    others = {
        block
        for page in ("README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
        for block in blocks(page)
    }
    assert others == {*RECORDS, *BODIES}, "another example is in the docs: send it here too"


@pytest.mark.parametrize("number", range(len(RECORDS)))
async def test_a_record_of_the_contract_is_accepted(orchestrator: Orchestrator, number: int) -> None:
    name = f"example-{number}"
    head, _, body = RECORDS[number].replace(JOB, orchestrator.prefix + name).partition("\n\n")
    key, *headers = (line.partition(": ")[::2] for line in head.splitlines())
    sent = [(header, value.encode()) for header, value in headers]
    producer = AIOKafkaProducer(**orchestrator.settings.cluster.connection())
    await producer.start()
    try:
        await producer.send_and_wait(REQUESTS.name, body.encode(), key[1].encode(), headers=sent)
    finally:
        await producer.stop()
    await until(lambda: answered(orchestrator, name))
    job = await orchestrator.job(name)
    assert (job["status"], job.get("reasons", [])) == ("running", [])


async def answered(orchestrator: Orchestrator, name: str) -> bool:
    return (await orchestrator.job(name))["status"] not in (None, "requested")


@pytest.mark.parametrize("body", BODIES)
async def test_a_document_of_the_readme_is_accepted(orchestrator: Orchestrator, body: str) -> None:
    request = json.loads(body.replace(JOB, orchestrator.prefix + "readme"))
    answer = await orchestrator.http.post("/training/start", json=request)
    assert answer.status_code == 202, answer.text
