"""A topic that may not be read does not keep other partitions' own events from being handed over."""

import asyncio
from types import SimpleNamespace
from typing import Any

import aiokafka.consumer.fetcher as fetching
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from services.chassis.kernel.consuming.client import Client
from tests.log import HeldRecord

READ, REFUSED = TopicPartition("neuroweaver.jobs", 0), TopicPartition("neuroweaver.other", 0)
OWN = (("ce_source", b"toy"), ("ce_sequence", b"1"))
FOREIGN = (("ce_source", b"trainer"), ("ce_sequence", b"1"))


class Fetched(fetching.FetchResult):  # type: ignore[misc]
    """Records of one fetch, all taken at once."""

    def __init__(self, records: list[Any]) -> None:
        self.records = records

    def getall(self, max_records: int | None = None) -> list[Any]:
        found, self.records = self.records, []
        return found

    def has_more(self) -> bool:
        return bool(self.records)


@pytest.mark.parametrize("headers", [OWN, FOREIGN], ids=["own", "foreign"])
async def test_records_pass_beside_a_topic_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, headers: Any) -> None:
    """Five polls of aiokafka's own fetcher; each fetch of the other topic is refused, and after an error all is sought anew."""
    monkeypatch.setattr(fetching, "FetchResult", Fetched)
    client = Client("toy", lambda: None, bootstrap_servers="127.0.0.1:1", group_id="g")
    client._coordinator = SimpleNamespace(check_errors=lambda: None)
    client._subscription._subscription = SimpleNamespace(assignment=SimpleNamespace(active=True))
    client.last_stable_offset = lambda _: 13
    fetcher: Any = object.__new__(fetching.Fetcher)
    fetcher._records, fetcher._closed, fetcher._wait_consume_future = {}, False, None
    fetcher._subscriptions = SimpleNamespace(reassignment_in_progress=False)
    fetcher._notify = lambda *_: None
    fetcher._create_fetch_waiter = lambda: asyncio.get_running_loop().create_future()
    client._fetcher, handed = fetcher, list[int]()
    for _ in range(5):
        if READ not in fetcher._records and (rest := range(handed[-1] + 1 if handed else 10, 13)):
            fetcher._records[READ] = Fetched(
                [HeldRecord(READ.topic, READ.partition, offset, 0, b"k", b"v", headers) for offset in rest]
            )
        fetcher._records.setdefault(
            REFUSED, fetching.FetchError(error=TopicAuthorizationFailedError(REFUSED.topic), backoff=0.1)
        )
        try:
            handed += [one.offset for one in (await client.getmany(timeout_ms=5)).get(READ, [])]
        except TopicAuthorizationFailedError:
            fetcher._records.clear()
    client._closed = True
    assert handed == [10, 11, 12]
