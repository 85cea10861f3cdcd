"""No event is lost, none is applied twice, and each key keeps its order, whatever dies meanwhile: the short form of the soak."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.topics import JOBS, REQUESTS
from services.devstack.settings import DevStackSettings
from services.devstack.stack import DevStack, running
from tests.conftest import create_topics
from tests.faults.field import field_on
from tests.faults.scale import Scale
from tests.faults.scenarios import SHORT, full_disk
from tests.faults.small_disk import on_small_disk, why_not
from tests.recreating import recreate


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """Servers that may be killed."""
    settings = DevStackSettings(home=tmp_path_factory.mktemp("fire"), kafka_bootstrap=None, database_url=None)
    with running(settings) as stack:
        create_topics(stack)
        yield stack


@pytest.fixture
async def empty_log(stack: DevStack) -> None:
    """So that a member dies over its own records, and none has to read those of the scenarios before."""
    for topic in (REQUESTS, JOBS):
        await recreate(stack.cluster, topic)


@pytest.mark.usefixtures("empty_log")
@pytest.mark.parametrize("name", SHORT)
async def test_nothing_is_lost_doubled_or_out_of_order_when(stack: DevStack, tmp_path: Path, name: str) -> None:
    async with field_on(stack, tmp_path) as field:
        verdict = await SHORT[name](field, Scale(repetitions=1, events=3000))
    assert verdict.well, verdict


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
async def test_nothing_is_lost_when_the_brokers_disk_is_full(tmp_path: Path) -> None:
    with on_small_disk(tmp_path / "small") as stack:
        async with field_on(stack, tmp_path) as field:
            verdict = await full_disk(field, Scale(repetitions=1, events=3000))
    assert verdict.well, verdict
