"""Selects a part of the log: topics, a partition, a range of offsets or of time, a key, a job."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import ConsumerRecord

from schemas.topics import CATALOGUE
from services.audit.raw_envelope import read_envelope
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.kernel.log import Range
from services.chassis.kernel.records import Partition

KEPT = tuple(topic.name for topic in CATALOGUE if topic.lasts)
"""Topics that are kept for ever: an audit reads these by default."""


class InvalidTime(ValueError):
    """A text is not a valid time."""


class InvalidSelection(ValueError):
    """The options contradict each other, or a partition does not exist."""


@dataclass(frozen=True)
class Selection:
    """A half-open selection: from `begin` and `first`, up to but excluding `end` and `last`. None sets no limit."""

    topics: tuple[str, ...] = KEPT
    partition: int | None = None
    begin: datetime | None = None
    end: datetime | None = None
    first: int | None = None
    last: int | None = None
    key: str | None = None
    job: str | None = None

    def __post_init__(self) -> None:
        named = {"--partition": self.partition, "--from-offset": self.first, "--to-offset": self.last}
        if len(self.topics) != 1 and (given := [name for name, value in named.items() if value is not None]):
            raise InvalidSelection(f"{given[0]}: offsets and partitions need exactly one --topic")
        if self.begin and self.end and self.begin >= self.end:
            raise InvalidSelection(
                f"--to {self.end.isoformat()}: it is not later than --from {self.begin.isoformat()}, so no record matches"
            )
        if self.first is not None and self.last is not None and self.first >= self.last:
            raise InvalidSelection(
                f"--to-offset {self.last}: it is not higher than --from-offset {self.first}, so no record matches"
            )

    async def ranges(self, cluster: Cluster) -> dict[Partition, Range]:
        """Return the selected offsets of each partition. Raises UnknownTopic, InvalidSelection and the broker's errors."""
        spans = await log.bounds(cluster, self.topics)
        if self.partition is not None:
            chosen = {partition: span for partition, span in spans.items() if partition[1] == self.partition}
            if not chosen:
                raise InvalidSelection(
                    f"--partition {self.partition}: {self.topics[0]} has partitions 0 to {len(spans) - 1}"
                )
            spans = chosen
        begins = await log.first_at(cluster, spans, self.begin) if self.begin else {}
        ends = await log.first_at(cluster, spans, self.end) if self.end else {}
        return {
            partition: (
                max(begins.get(partition, begin), self.first or 0),
                min(ends.get(partition, end), end if self.last is None else self.last),
            )
            for partition, (begin, end) in spans.items()
        }

    def holds(self, record: ConsumerRecord) -> bool:
        """Return whether a record has the selected key and job."""
        if self.key is not None and record.key != raw_key(self.key):
            return False
        return self.job is None or is_of_job(record, self.job)


def raw_key(text: str) -> bytes:
    """Return the bytes of a key as the shell passed them, even if they are not UTF-8."""
    return text.encode(errors="surrogateescape")


def is_of_job(record: ConsumerRecord, job: str) -> bool:
    """Return whether the record is about the job: by its key, its correlation id or the job id in its data."""
    name = raw_key(job)
    if record.key == name:
        return True
    mentioned = name in (record.value or b"") or any(name in (value or b"") for _, value in record.headers)
    return mentioned and read_envelope(record.value, record.headers).job_id == job


@asynccontextmanager
async def records(cluster: Cluster, selection: Selection) -> AsyncIterator[AsyncIterator[ConsumerRecord]]:
    """Give the selected records, in order per partition, as they arrive. Raises as `ranges` does."""
    async with log.read(cluster, await selection.ranges(cluster)) as chunks:
        yield (record async for chunk in chunks for record in chunk if selection.holds(record))


def moment(text: str, name: str) -> datetime:
    """Parse an RFC 3339 time. Raises InvalidTime, which names the option and the remedy."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidTime(f"{name} {text!r} is not a time; write it as 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise InvalidTime(f"{name} {text!r} has no time zone; write {time.isoformat()}Z, or with +01:00")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise InvalidTime(f"{name} {text!r} is outside the years 1 to 9999; correct it") from None
