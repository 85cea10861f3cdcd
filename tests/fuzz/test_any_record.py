"""Some seconds of the fuzzer on a broker of its own: garbage by the hundred would slow down everybody else's tests."""

from pathlib import Path

from services.devstack.settings import DevStackSettings
from services.devstack.stack import running
from tests.conftest import create_topics
from tests.fuzz.running import Fuzzed, fuzz
from tests.orchestrator import Orchestrator

SEED = 20_261_126
RECORDS = 300


async def test_whole_records_of_any_bytes_stop_nothing_and_whoever_can_be_answered_is(
    database_url: str, tmp_path: Path
) -> None:
    with running(DevStackSettings(home=tmp_path / "stack", kafka_bootstrap=None, database_url=database_url)) as stack:
        create_topics(stack)
        orchestrator = Orchestrator(stack.kafka_bootstrap, database_url, tmp_path)
        async with orchestrator.running():
            found: Fuzzed = await fuzz(orchestrator, tmp_path / "exports", SEED, lambda so_far: so_far.records < RECORDS)
    assert len(found.asked) > RECORDS / 4
    assert found.letters["unreadable"] > RECORDS / 20
