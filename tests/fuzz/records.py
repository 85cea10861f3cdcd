"""Records as senders of every kind write them, and as nobody does: each part from what is right, nearly right, and any bytes."""

import base64
import json
import random
import struct
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.raw_batches import CODECS, RawRecord, encoded_record

_TYPES = (
    "neuroweaver.JobRequested", '"neuroweaver.JobRequested"', "JobRequested", "neuroweaver.jobrequested",
    "neuroweaver.JobRequested ", "NEUROWEAVER.JOBREQUESTED",
)  # fmt: skip
"""Spellings that all mean JobRequested."""
_OTHER_TYPES = (
    "neuroweaver.JobCancelRequested", "neuroweaver.JobRequest", "neuroweaver.JobRequested.v9", "neuroweaver.JobCompleted",
    "com.example.Order", "", " ", "neuroweaver.", "\x00", "neuroweaver.StepRequested.v2", "x" * 5000,
)  # fmt: skip
_TIMES = (
    "2026-11-02T09:30:00Z", "2026-11-02t09:30:00z", "2026-11-02T09:30:00.123456789Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z",
    "2016-12-31T23:59:60Z", "1762075800000", "2023-01-25T19:07:06.370582GMT", "2026-11-02T09:30:00", "", "infinity", "-infinity",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "NaN", "1969-12-31T23:59:59Z",
)  # fmt: skip
_ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 2**63, 2**64, 10**200, 1e300, "", " ", "x" * 3000, "\ud800", "a\x00b", "\ufdd0", [], {}, [[]] * 200, "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-12:00", {"": ""}, "..", "\u202e", "sft", [{"name": "prepare", "kind": "prepare"}],
)  # fmt: skip
_NAMES = (
    b"Z\xfcrich", b"", b"\x00", b"\xff\xfe", b"ce_id", b"CE_ID", b"ce-type", b"content-type", b"ce_time", b"traceparent", b"\xef\xb7\x90x",
    b"x" * 3000,
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One record, with the job that must get an answer; None if none must."""

    record: RawRecord
    job_id: str | None


@dataclass(frozen=True)
class Batch:
    """Records that are sent together."""

    sent: tuple[Sent, ...]
    partition: int
    how: dict[str, Any]


class Fuzz:
    """An endless source of batches; the same seed gives the same batches."""

    def __init__(self, seed: int, prefix: str, partitions: int) -> None:
        self._random, self._prefix, self._partitions = random.Random(seed), prefix, partitions
        self._jobs: list[str] = []

    def batch(self) -> Batch:
        """Return the next batch. A damaged record need not get an answer."""
        chance = self._random
        sent = tuple(self._sent() for _ in range(chance.choice((1, 1, 2, 5))))
        codec = chance.choice(CODECS)
        how: dict[str, Any] = {"codec": codec}
        if chance.random() < 0.1:
            payload = bytearray(b"".join(encoded_record(one.record, number) for number, one in enumerate(sent)))
            for _ in range(chance.choice((1, 1, 3, 40))):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
            how["payload"] = bytes(payload)
        elif chance.random() < 0.03:
            how["payload"] = chance.randbytes(chance.randrange(200))
        elif chance.random() < 0.02:
            how |= {"payload": b"x" * 40 * 2**20, "codec": chance.choice(("gzip", "zstd"))}
        if "payload" in how:
            sent = tuple(Sent(one.record, None) for one in sent)
        return Batch(sent, chance.randrange(self._partitions), how)

    def _sent(self) -> Sent:
        chance = self._random
        job_id, body = self._body()
        value, intact = self._value(body)
        asks = chance.random() < 0.75
        type_ = chance.choice(_TYPES if asks else _OTHER_TYPES)
        headers: list[tuple[bytes, bytes | None]] = []
        if chance.random() < 0.2 and isinstance(value, bytes) and intact:
            value = self._structured(type_, value)
            headers.append((b"content-type", b"application/cloudevents+json"))
        else:
            headers += self._headers(type_)
        for _ in range(chance.choice((0, 0, 1, 3))):
            name = chance.choice((*_NAMES, chance.randbytes(6)))
            if asks and name.lower().replace(b"-", b"_") in (b"ce_type", b"content_type"):
                continue
            headers.append((name, chance.choice((None, b"", b"\xff\x00", chance.randbytes(20), b"x" * 9000))))
        chance.shuffle(headers)
        key = chance.choice(
            (
                job_id.encode("utf-8", "replace"),
                None,
                b"",
                b"\x00\xff",
                chance.randbytes(8),
                struct.pack(">q", 42),
                b"k" * 2000,
            )
        )
        return Sent(RawRecord(value, headers, key), job_id if asks and intact else None)

    def _body(self) -> tuple[str, dict[str, Any]]:
        chance = self._random
        if self._jobs and chance.random() < 0.15:
            job_id = chance.choice(self._jobs)
        else:
            odd = chance.choice(("", "", "", "", "/x", " ", "\u00fc", "..", "%00", "\U0001f600", "x" * 200))
            job_id = f"{self._prefix}{UUID(int=chance.getrandbits(128)).hex[:12]}{odd}"
            self._jobs.append(job_id)
        body: dict[str, Any] = {
            "job_id": job_id, "requester": "fuzz", "pipeline": [{"name": "prepare", "kind": "prepare"}], "base_model": "/m",
            "dataset": {"reference": "/d"}, "register_as": "m",
        }  # fmt: skip
        for _ in range(chance.choice((0, 1, 3))):
            fields = (
                "requester",
                "reason",
                "deadline",
                "priority",
                "pipeline",
                "dataset",
                "training",
                "alias",
                "register_as",
                "\x00",
                "\ud800",
                "x",
            )
            body[chance.choice(fields)] = chance.choice(_ODD_VALUES)
        return job_id, body

    def _value(self, body: dict[str, Any]) -> tuple[bytes | None, bool]:
        """Return the body as bytes, and whether its job id can still be read."""
        chance = self._random
        text = json.dumps(body, ensure_ascii=chance.random() < 0.5)
        raw = text.encode("utf-8", "surrogatepass")
        match chance.randrange(24):
            case 0:
                return None, False
            case 1:
                return chance.randbytes(chance.randrange(60)), False
            case 2:
                return raw[: chance.randrange(len(raw))], False
            case 3:
                at = chance.randrange(len(raw))
                return raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :], False
            case 4:
                depth = chance.choice((70, 500, 2000, 20_000))
                return raw[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}", True
            case 5:
                return raw[:-1] + b', "job_id": ' + json.dumps(body["job_id"]).encode() + b"}", True
            case 6:
                return raw[:-1] + b', "n": ' + chance.choice((b"tru", b"01", b"'1'")) + b"}", False
            case 7:
                return raw[:-1] + b', "n": ' + chance.choice(
                    (b"NaN", b"-Infinity", b"1e400", b"9" * 400, b"-0.0")
                ) + b"}", True
            case 8:
                return b"\xef\xbb\xbf" + raw, True
            case 9:
                return (text.encode("utf-16", "surrogatepass"), "\ud800" not in text)
            case 10:
                return b"\x00\x00\x00\x00\x07" + raw, True
            case 11:
                size = chance.choice((600_000, 3_000_000, 6_000_000))
                return raw[:-1] + b', "large": "' + b"x" * size + b'"}', size < 4_000_000
        return raw, True

    def _headers(self, type_: str) -> list[tuple[bytes, bytes | None]]:
        chance = self._random
        prefix = chance.choice(("ce_", "ce_", "ce_", "CE_", "ce-"))
        attributes: dict[str, bytes | None] = {
            "specversion": chance.choice((b"1.0", b"1.0", b"1.0", b'"1.0"', b"0.3", None, b"\xff")),
            "id": chance.choice((chance.randbytes(8).hex().encode(), b"1", None, b"\xff\x00", b"i" * 5000)),
            "source": chance.choice((b"fuzz", b"fuzz", None, b"Z\xfcrich", b"\x00", b"neuroweaver/orchestrator")),
            "time": chance.choice((None, *(text.encode() for text in _TIMES), chance.randbytes(5))),
            "subject": chance.choice((None, b"", b"s", b"\xff", b"s" * 9000)),
            "traceparent": chance.choice((None, b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"\x00")),
            "sequence": chance.choice((None, b"7", b"\xc2\xb2")),
        }
        found = [(f"{prefix}{name}".encode(), held) for name, held in attributes.items()]
        return [(f"{prefix}type".encode(), type_.encode()), *found]

    def _structured(self, type_: str, value: bytes) -> bytes:
        chance = self._random
        head: dict[str, Any] = {
            "specversion": chance.choice(("1.0", 1.0, None)), "id": chance.choice(("1", 7, None, "\ud800", {"a": 1})),
            "source": chance.choice(("fuzz", ["fuzz"], None)), "type": type_, "time": chance.choice((None, 5, *_TIMES)),
        }  # fmt: skip
        if chance.random() < 0.3:
            return json.dumps({**head, "data_base64": base64.b64encode(value).decode()}).encode()
        try:
            data = json.loads(value)
        except (ValueError, RecursionError):
            return json.dumps({**head, "data_base64": base64.b64encode(value).decode()}).encode()
        return json.dumps({**head, "data": data}).encode()
