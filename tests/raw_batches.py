"""Batches as other clients write them: any bytes as header names, any compression, any damage that a broker lets through."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import cramjam
from aiokafka import AIOKafkaProducer
from aiokafka.codec import lz4_encode
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class RawRecord(NamedTuple):
    """A record whose parts are bytes."""

    value: bytes | None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    key: bytes | None = None


def varint(number: int) -> bytes:
    """Encode a number as zigzag varint, as the message format does."""
    value = (number << 1) ^ (number >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encoded_record(record: RawRecord, number: int) -> bytes:
    """Encode a record with its length before it."""

    def field(raw: bytes | None) -> bytes:
        return varint(-1) if raw is None else varint(len(raw)) + raw

    body = b"\x00" + varint(0) + varint(number) + field(record.key) + field(record.value) + varint(len(record.headers))
    body += b"".join(field(name) + field(value) for name, value in record.headers)
    return varint(len(body)) + body


def compressed(payload: bytes, codec: str) -> bytes:
    match codec:
        case "gzip":
            packer = zlib.compressobj(6, wbits=31)
            return packer.compress(payload) + packer.flush()
        case "snappy":
            return bytes(cramjam.snappy.compress_raw(payload))
        case "lz4":
            return bytes(lz4_encode(payload))
        case "zstd":
            return bytes(cramjam.zstd.compress(payload))
    return payload


def batch_of(
    records: Sequence[RawRecord],
    *,
    codec: str = "none",
    payload: bytes | None = None,
    base_offset: int = 0,
    timestamp: int = 1_700_000_000_000,
    attributes: int = 0,
    last_delta: int | None = None,
) -> bytes:
    """Encode a whole batch; `payload` replaces the encoded records, and `last_delta` the delta of the last offset."""
    if payload is None:
        payload = b"".join(encoded_record(record, number) for number, record in enumerate(records))
    last = len(records) - 1 if last_delta is None else last_delta
    body = struct.pack(
        ">hiqqqhii", attributes | CODECS.index(codec), last, timestamp, timestamp, -1, -1, -1, len(records)
    ) + compressed(payload, codec)
    head = struct.pack(">qiibI", base_offset, 9 + len(body), 0, 2, calc_crc32c(body))
    return head + body


class _Raw(BatchBuilder):  # type: ignore[misc]
    """An encoded batch in the form of aiokafka's batches."""

    def __init__(self, raw: bytes, count: int) -> None:
        super().__init__(1, 0)
        self._buffer, self._relative_offset, self._closed = bytearray(raw), count, True


async def hand_over(producer: AIOKafkaProducer, topic: str, partition: int, batch: bytes, count: int) -> int:
    """Append an encoded batch; returns the offset of its first record. Raises KafkaError if the broker refuses it."""
    await producer.client._wait_on_metadata(topic)
    sent = await producer.send_batch(_Raw(batch, count), topic, partition=partition)
    return int((await sent).offset)


async def send_batch(kafka: str, topic: str, partition: int, records: Sequence[RawRecord], **how: Any) -> int:
    """Append the records as one batch; returns the offset of the first."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=False, acks="all", max_request_size=2**26)
    await producer.start()
    try:
        return await hand_over(producer, topic, partition, batch_of(records, **how), len(records))
    finally:
        await producer.stop()
