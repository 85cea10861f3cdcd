"""One outsider's record stops nobody: whatever a broker takes, its partition goes on, and every reader of the log goes on."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from schemas.json_text import BATCH_BYTES
from schemas.topics import REQUESTS
from services.audit.export import export
from services.audit.verdict import verify_export
from services.chassis.kafka.fetch.parse import KEPT_BYTES
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.deadletters.models import DeadLetter
from services.chassis.kernel.records import name_bytes
from services.chassis.replay import rebuild as replay
from services.devstack.stack import DevStack
from tests.log import read_all
from tests.raw_batches import RawRecord, encoded_record, send_batch, varint
from tests.recreating import recreate
from tests.toy import Toy, until

PARTITION = 3


@pytest.fixture
async def servers(own_stack: DevStack) -> AsyncIterator[DevStack]:
    """Of its own, since what is sent here every service reads; others find the topic without it."""
    yield own_stack
    await recreate(own_stack.cluster, REQUESTS)


BAD_NAME = b"Z\xfcrich"


def asking(toy: Toy, name: str, *more: tuple[bytes, bytes | None]) -> RawRecord:
    """A JobRequested of the toy, with these headers besides."""
    attributes = {"specversion": "1.0", "id": uuid4().hex, "source": "outside", "type": "neuroweaver.JobRequested"}
    headers = [(f"ce_{name}".encode(), value.encode()) for name, value in attributes.items()]
    job_id = toy.prefix + name
    return RawRecord(json.dumps({"job_id": job_id}).encode(), [*headers, *more], job_id.encode())


async def answered(toy: Toy, *names: str) -> bool:
    return {name for name, tally in (await toy.tallies()).items() if tally.refused} >= set(names)


async def letter_at(toy: Toy, offset: int) -> DeadLetter | None:
    async with toy.engine.connect() as connection:
        return await repository.show(connection, (REQUESTS.name, PARTITION, offset))


async def test_header_names_that_are_no_utf8_stop_nobody_and_are_given_back_byte_for_byte(toy: Toy, tmp_path: Path) -> None:
    kafka = toy.settings.kafka_bootstrap
    async with toy.running() as service:
        offset = await send_batch(
            kafka, REQUESTS.name, PARTITION, [asking(toy, "odd", (BAD_NAME, b"v"), (b"\x00", None)), asking(toy, "next")]
        )
        garbage = await send_batch(
            kafka, REQUESTS.name, PARTITION, [RawRecord(b"garbage", [(BAD_NAME, b"v")])], codec="lz4"
        )
        await send_batch(kafka, REQUESTS.name, PARTITION, [asking(toy, "behind", (b"\xff\xfe", b""))], codec="gzip")
        await until(lambda: answered(toy, "odd", "next", "behind"))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
        letter = await letter_at(toy, garbage)
        assert letter is not None
        assert letter.headers == (("Z\\xfcrich", "v"),)
        copies = f"neuroweaver.{toy.name}.dlq"
        await until(lambda: has_copy(kafka, copies, garbage))
        assert (await replay.verify(toy.runtime().projection)).differences == 0
    folder = tmp_path / "export"
    await export(toy.settings.cluster, folder, [REQUESTS.name])
    verdict = verify_export(folder)
    assert (verdict.holds, verdict.findings) == (True, 0)
    (record,) = [r for r in await read_all(kafka, REQUESTS.name) if (r.partition, r.offset) == (PARTITION, offset)]
    assert [name_bytes(name) for name, _ in record.headers][-2:] == [BAD_NAME, b"\x00"]


async def has_copy(kafka: str, topic: str, offset: int) -> bool:
    return any(dict(record.headers)["dlq_offset"] == str(offset).encode() for record in await read_all(kafka, topic))


async def test_what_decompresses_beyond_the_bound_is_a_dead_letter_and_what_is_behind_it_flows_on(toy: Toy) -> None:
    kafka = toy.settings.kafka_bootstrap
    async with toy.running() as service:
        offsets = []
        for codec in ("gzip", "lz4", "zstd"):
            large = RawRecord(b"x" * BATCH_BYTES)
            offsets.append(await send_batch(kafka, REQUESTS.name, PARTITION, [large, asking(toy, codec)], codec=codec))
            await send_batch(kafka, REQUESTS.name, PARTITION, [asking(toy, f"behind-{codec}")])
        large = RawRecord(b"x" * (KEPT_BYTES + 1))
        offsets.append(await send_batch(kafka, REQUESTS.name, PARTITION, [asking(toy, "beside"), large], codec="zstd") + 1)
        await until(lambda: answered(toy, "behind-gzip", "behind-lz4", "behind-zstd", "beside"))
        for offset in offsets[:3]:
            for at in (offset, offset + 1):
                letter = await letter_at(toy, at)
                assert letter is not None
                assert f"more than {BATCH_BYTES} bytes" in letter.error
        letter = await letter_at(toy, offsets[3])
        assert letter is not None
        assert f"up to {KEPT_BYTES} are read" in letter.error
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
        assert (await replay.verify(toy.runtime().projection)).differences == 0


async def test_offsets_that_a_sender_chose_pass_over_nobody(toy: Toy) -> None:
    """A broker does not look at the offsets within a batch that is not compressed."""
    kafka = toy.settings.kafka_bootstrap
    async with toy.running() as service:
        for number, deltas in enumerate([(0, 1_000_000), (0, 2**31 - 1), (1, 0), (0, 0), (0, -5)]):
            first, second, behind = (asking(toy, f"{place}-{number}") for place in ("first", "second", "behind"))
            payload = encoded_record(first, deltas[0]) + encoded_record(second, deltas[1])
            await send_batch(kafka, REQUESTS.name, PARTITION, [first, second], payload=payload)
            await send_batch(kafka, REQUESTS.name, PARTITION, [behind])
        names = [f"{place}-{number}" for place in ("first", "second", "behind") for number in range(5)]
        await until(lambda: answered(toy, *names), what=lambda: service.health.missing)
        assert (await replay.verify(toy.runtime().projection)).differences == 0


async def test_a_record_of_millions_of_headers_is_a_dead_letter(toy: Toy) -> None:
    kafka = toy.settings.kafka_bootstrap
    count = 5_000_000
    body = b"\x00\x00\x00\x01\x01" + varint(count) + b"\x00\x01" * count
    async with toy.running():
        at = await send_batch(
            kafka, REQUESTS.name, PARTITION, [RawRecord(None)], codec="gzip", payload=varint(len(body)) + body
        )
        await send_batch(kafka, REQUESTS.name, PARTITION, [asking(toy, "behind")])
        await until(lambda: answered(toy, "behind"))
        letter = await letter_at(toy, at)
        assert letter is not None
        assert "bytes, and up to" in letter.error


async def test_any_key_is_handled_while_records_of_its_partition_are_held_up(toy: Toy) -> None:
    kafka = toy.settings.kafka_bootstrap
    toy.domain.poison = lambda event: event.correlation_id == toy.prefix + "bad"
    keys = [(42).to_bytes(8, "big"), b"\xff\x00\xfe", b"k" * 500_000, b"", None]
    async with toy.running() as service:
        bad = await send_batch(kafka, REQUESTS.name, PARTITION, [asking(toy, "bad")])
        await until(lambda: letter_at(toy, bad))
        records = [asking(toy, f"{number}")._replace(key=key) for number, key in enumerate(keys)]
        await send_batch(kafka, REQUESTS.name, PARTITION, [*records, asking(toy, "behind")])
        toy.domain.poison = lambda event: event.correlation_id in (toy.prefix + "bad", toy.prefix + "odd")
        odd = [RawRecord(asking(toy, "odd").value, asking(toy, "odd").headers, key) for key in keys]
        await send_batch(kafka, REQUESTS.name, PARTITION, odd)
        await send_batch(kafka, REQUESTS.name, PARTITION, [asking(toy, "last")])
        await until(lambda: answered(toy, *(f"{number}" for number in range(len(keys))), "behind", "last"))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
        assert (await replay.verify(toy.runtime().projection)).differences == 0
