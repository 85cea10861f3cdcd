"""`audit replay`, `trace` and `as-of` on a real log: what they show, how they end, and that they leave no trace of their own."""

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.discards import RecordDiscarded
from schemas.jobs import FeedbackRecorded, JobAccepted
from schemas.topics import JOBS, REQUESTS
from services.audit.as_of import jobs_at, versions_at
from services.audit.bundle.dsse import public_key
from services.audit.bundle.verifying import verify_bundle
from services.audit.selection import Selection, records
from services.chassis.kafka.catalogue import configuration
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.cli.exits import Exit
from tests.audit import MadeJob, publish
from tests.command import Ended, run, unread

Unique = Callable[[str], str]


async def audit(kafka: str, *arguments: str) -> Ended:
    return await run("", "audit", *arguments, NEUROWEAVER_KAFKA_BOOTSTRAP=kafka)


@pytest.fixture
async def job(kafka: str, unique: Unique) -> MadeJob:
    """A job that lies on the log, whole."""
    made = MadeJob(unique("job"), unique("router"))
    await publish(kafka, made.events)
    return made


async def topic_of(kafka: str, name: str, *values: str, partitions: int = 1) -> str:
    """A topic of its own with records a few milliseconds apart, key by key on partition 0."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(configuration(JOBS)))])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    for value in values:
        await producer.send_and_wait(name, value.encode(), key=value.encode(), partition=0)
        await asyncio.sleep(0.02)
    await producer.stop()
    return name


async def selected(kafka: str, selection: Selection) -> list[ConsumerRecord]:
    async with records(Cluster(kafka), selection) as found:
        return [record async for record in found]


def lines(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def values(ended: Ended) -> list[Any]:
    return [line["value"] for line in lines(ended)]


async def test_a_job_is_told_as_a_history_with_causes_before_effects(kafka: str, job: MadeJob) -> None:
    ended = await audit(kafka, "replay", "--job", job.job_id)
    assert ended.code == 0, ended.err
    heading, *told = [line for line in ended.out.splitlines() if line]
    assert heading == f"— {job.job_id} —"
    assert len(told) == len(job.events)
    numbers = {event.id: n for n, event in enumerate(job.events, 1)}
    assert "JobRequested" in told[0]
    assert "relaycore requests rlaif on /models/base" in told[0]
    for line in told[1:]:
        number, because = line.split()[:2]
        assert int(because.removeprefix("←")) < int(number)
    assert any("4 preference pairs of 6 comparisons" in line for line in told)
    assert len(numbers) == len(told)


async def test_the_same_as_json_lines_is_what_lies_on_the_log(kafka: str, job: MadeJob) -> None:
    found = lines(await audit(kafka, "replay", "--job", job.job_id, "--json"))
    assert {line["headers"]["ce_id"] for line in found} == {event.id for event in job.events}
    accepted = next(line for line in found if line["headers"]["ce_type"] == f"neuroweaver.{JobAccepted.type_name()}")
    assert accepted["value"]["job_id"] == job.job_id
    by_key = lines(await audit(kafka, "replay", "--topic", REQUESTS.name, "--key", job.job_id, "--json"))
    assert [line["value"]["job_id"] for line in by_key] == [job.job_id]


async def test_windows_of_offsets_and_of_time_are_half_open(kafka: str, unique: Unique) -> None:
    topic = await topic_of(kafka, unique("window"), "0", "1", "2", "3", "4", partitions=2)
    all_of_it = lines(await audit(kafka, "replay", "--topic", topic, "--json"))
    assert [line["value"] for line in all_of_it] == [0, 1, 2, 3, 4]
    times = [line["timestamp"] for line in all_of_it]
    options = ("--from", times[1], "--to", times[4], "--to-offset", "3", "--partition", "0")
    assert values(await audit(kafka, "replay", "--topic", topic, *options, "--json")) == [1, 2]

    async def found(**window: Any) -> list[int]:
        return [int(record.value) for record in await selected(kafka, Selection(topics=(topic,), **window))]

    moments = [datetime.fromisoformat(time) for time in times]
    assert await found(first=1, last=3) == [1, 2]
    assert await found(begin=moments[1], end=moments[3]) == [1, 2]
    assert await found(begin=datetime(1960, 1, 1, tzinfo=UTC), end=moments[1]) == [0]
    assert await found(begin=moments[3], first=1) == [3, 4]
    assert await found(partition=1) == []
    assert await found(key="3") == [3]
    nothing = await audit(kafka, "replay", "--topic", topic, "--from", "2999-01-01T00:00:00Z")
    assert (nothing.code, nothing.out) == (0, "")
    assert "No record matches these filters" in nothing.err


async def test_records_that_are_no_events_are_told_and_cannot_steer_the_terminal(kafka: str, unique: Unique) -> None:
    topic = await topic_of(kafka, unique("hostile"), "\x1b[2Jgone", '{"job_id": "\\u001b]0;title\\u0007"}')
    ended = await audit(kafka, "replay", "--topic", topic)
    assert ended.code == 0, ended.err
    assert ended.out.count("not readable") == 2
    assert "\\x1b]0;title\\x07" in ended.out
    assert "\x1b" not in ended.out
    assert "\x07" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("as-of", "9999-12-31T23:59:59.999999Z", "jobs", "--key", "\udcff"), 4, "the log knew no such job at 9999"),
        (("replay", "--key", "\udcff"), 0, "No record matches these filters"),
        (("replay", "--from", "2026-01-01"), 2, "--from '2026-01-01' has no time zone"),
        (("replay", "--to", "soon"), 2, "--to 'soon' is not a time"),
        (("replay", "--partition", "0"), 2, "need exactly one --topic"),
        (("replay", "--topic", "neuroweaver.jobs", "--partition", "77"), 2, "has partitions 0 to 5"),
        (("replay", "--topic", "nowhere"), 4, "no topic 'nowhere' exists"),
        (("as-of", "2026-01-01T00:00:00", "jobs"), 2, "write 2026-01-01T00:00:00Z"),
        (("as-of", "x", "models"), 2, "TIME 'x' is not a time"),
        (("trace", "job-that-nobody-asked-for"), 4, "is not in the log"),
        (("trace", "model-of-nobody@1.0.0"), 4, "which has no version of it"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_a_remedy(
    kafka: str, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ended = await audit(kafka, *arguments)
    assert ended.code == code, ended.err
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


async def test_a_job_and_its_version_have_one_trace(kafka: str, job: MadeJob) -> None:
    by_job = await audit(kafka, "trace", job.job_id, "--json")
    assert by_job.code == 0, by_job.err
    found = by_job.json
    assert (found["complete"], found["missing"], found["events"]) == (True, [], len(job.events))
    for name in ("1.0.0", "candidate"):
        by_model = await audit(kafka, "trace", f"{job.model}@{name}", "--json")
        assert by_model.json == found
    text = await audit(kafka, "trace", f"{job.model}@1.0.0")
    assert "The chain is complete" in text.out
    meant = await audit(kafka, "trace", job.model)
    assert meant.code == 4
    assert f"did you mean {job.model}@1.0.0?" in meant.err


async def test_a_version_that_only_somebody_else_claims_is_not_known(kafka: str, unique: Unique) -> None:
    job = MadeJob(unique("job"), unique("router"))
    forged = [
        event._replace(source="outsider") if event.source == "neuroweaver/registry" else event for event in job.events
    ]
    await publish(kafka, forged)
    assert (await audit(kafka, "trace", f"{job.model}@1.0.0")).code == 4
    ended = await audit(kafka, "trace", job.job_id, "--json")
    assert ended.code == 1
    assert "ModelRegistered of register" in ended.json["missing"]


async def test_a_chain_with_a_missing_link_ends_with_exit_code_1_and_names_it(kafka: str, unique: Unique) -> None:
    job = MadeJob(unique("job"), unique("router"))
    await publish(kafka, job.without(FeedbackRecorded))
    ended = await audit(kafka, "trace", f"{job.model}@1.0.0")
    assert ended.code == 1
    assert "The chain is NOT complete" in ended.out
    assert "  - FeedbackRecorded of label, attempt 1" in ended.out


async def appended(kafka: str, job: MadeJob) -> dict[str, datetime]:
    """When the broker appended each event of a job, by its id."""
    found = {}
    for record in await selected(kafka, Selection(job=job.job_id)):
        found[dict(record.headers)["ce_id"].decode()] = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    return found


async def test_jobs_and_models_are_shown_as_they_were_at_each_moment(kafka: str, unique: Unique) -> None:
    job = MadeJob(unique("job"), unique("router"))
    cut = next(n for n, event in enumerate(job.events) if isinstance(event.data, JobAccepted)) + 1
    before = datetime.now(UTC) - timedelta(seconds=1)
    await publish(kafka, job.events[:cut])
    await asyncio.sleep(0.05)
    await publish(kafka, job.events[cut:])
    times = await appended(kafka, job)
    accepted, last = times[job.events[cut - 1].id], max(times.values())

    async def status(moment: datetime) -> str | None:
        jobs, past = await jobs_at(Cluster(kafka), moment)
        assert not [remark for remark in past.remarks if job.job_id in remark]
        return next((str(found.status) for found in jobs if found.job_id == job.job_id), None)

    assert await status(before) is None
    assert await status(accepted) == "running"
    assert await status(accepted - timedelta(milliseconds=1)) in (None, "requested")
    assert await status(last) == "completed"

    async def versions(moment: datetime) -> list[tuple[str, tuple[str, ...]]]:
        found, _ = await versions_at(Cluster(kafka), moment)
        return [(version.id, version.aliases) for version in found if version.name == job.model]

    assert await versions(accepted) == []
    assert await versions(last) == [(f"{job.model}@1.0.0", ("candidate",))]

    shown = await audit(kafka, "as-of", accepted.isoformat(), "jobs", "--json")
    (found,) = [item for item in shown.json if item["job_id"] == job.job_id]
    assert (found["status"], found["version"]) == ("running", None)
    later = await audit(kafka, "as-of", last.isoformat(), "models")
    assert f"{job.model}@1.0.0" in later.out
    alone = await audit(kafka, "as-of", last.isoformat(), "jobs", "--key", job.job_id, "--json")
    assert [(item["job_id"], item["status"]) for item in alone.json] == [(job.job_id, "completed")]
    assert [item.id for item in (await versions_at(Cluster(kafka), last, job.model))[0]] == [f"{job.model}@1.0.0"]
    unborn = await audit(kafka, "as-of", before.isoformat(), "jobs", "--key", job.job_id)
    assert (unborn.code, unborn.out) == (4, "")
    assert "the log knew no such job at" in unborn.err


async def test_a_record_that_was_given_up_counts_as_little_in_the_past(kafka: str, unique: Unique) -> None:
    job = MadeJob(unique("job"), unique("router"))
    await publish(kafka, job.events[:1])
    (asked,) = await selected(kafka, Selection(job=job.job_id))
    now = datetime.now(UTC)
    assert [found.job_id for found in (await jobs_at(Cluster(kafka), now))[0] if found.job_id == job.job_id]
    given_up = RecordDiscarded(
        service="orchestrator", topic=asked.topic, partition=asked.partition, offset=asked.offset, appended_at=now,
        error="poison", reason="nobody wants it", discarded_by="an operator",
    )  # fmt: skip
    await publish(kafka, [job.events[0]._replace(source="neuroweaver/orchestrator", data=given_up)])
    assert not [found.job_id for found in (await jobs_at(Cluster(kafka), now))[0] if found.job_id == job.job_id]


async def test_a_record_carries_the_time_of_the_broker_whatever_its_sender_says(kafka: str, unique: Unique) -> None:
    """Else whoever sends decides what was known when."""
    topic = await topic_of(kafka, unique("clock"))
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    await producer.send_and_wait(topic, b"{}", timestamp_ms=1)
    await producer.stop()
    (found,) = await selected(kafka, Selection(topics=(topic,)))
    assert abs(datetime.fromtimestamp(found.timestamp / 1000, UTC) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("command", ["audit replay --json --topic", "audit replay --topic", "topics read"])
async def test_a_reader_that_has_closed_the_output_ends_a_command_without_a_word(
    kafka: str, unique: Unique, command: str
) -> None:
    topic = await topic_of(kafka, unique("topic"), "0", "1")
    environment = {**os.environ, "NEUROWEAVER_KAFKA_BOOTSTRAP": kafka}
    ended = await asyncio.to_thread(unread, [*command.split(), topic], environment)
    assert ended == Ended(Exit.NOBODY_READS, "", "")


async def groups(kafka: str) -> dict[str, dict[str, int]]:
    """Every consumer group with its committed offsets."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        names = sorted(name for name, _ in await admin.list_consumer_groups())
        return {
            name: {
                f"{p.topic}:{p.partition}": place.offset
                for p, place in (await admin.list_consumer_group_offsets(name)).items()
            }
            for name in names
        }
    finally:
        await admin.close()


async def test_no_group_and_no_offset_is_touched_by_any_command(
    kafka: str, unique: Unique, job: MadeJob, tmp_path: Any
) -> None:
    name = unique("group")
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=name, enable_auto_commit=False)
    await consumer.start()
    place = TopicPartition(JOBS.name, 0)
    consumer.assign([place])
    await consumer.commit({place: 1})
    before = await groups(kafka)
    assert before[name] == {f"{JOBS.name}:0": 1}
    now = datetime.now(UTC).isoformat()
    for arguments in (
        ("replay", "--job", job.job_id),
        ("replay", "--from", now),
        ("trace", job.job_id),
        ("as-of", now, "jobs"),
        ("as-of", now, "models"),
        ("export", "--to", str(tmp_path / "export"), "--topic", REQUESTS.name),
        ("verify-export", str(tmp_path / "export"), "--against-log"),
    ):
        ended = await audit(kafka, *arguments)
        assert ended.code == 0, ended.err
    assert await groups(kafka) == before
    await consumer.stop()


async def test_the_first_offset_at_a_moment_is_found_for_every_partition(kafka: str, unique: Unique) -> None:
    topic = await topic_of(kafka, unique("moment"), "a", "b", partitions=2)
    spans = await log.bounds(Cluster(kafka), [topic])
    assert await log.first_at(Cluster(kafka), spans, datetime(1, 1, 1, tzinfo=UTC)) == {(topic, 0): 0, (topic, 1): 0}
    assert await log.first_at(Cluster(kafka), spans, datetime(9999, 1, 1, tzinfo=UTC)) == {(topic, 0): 2, (topic, 1): 0}


async def test_a_cluster_without_the_topics_has_no_bounds(kafka: str) -> None:
    assert await log.bounds(Cluster(kafka), []) == {}


async def test_the_evidence_of_a_version_has_the_records_of_its_job_and_is_found_by_alias(
    kafka: str, job: MadeJob, unique: Unique, tmp_path: Path
) -> None:
    await publish(kafka, MadeJob(unique("other"), unique("neighbour")).events)
    settings = {"NEUROWEAVER_KAFKA_BOOTSTRAP": kafka, "NEUROWEAVER_EVIDENCE_KEY": str(tmp_path / "key")}
    assert (await run("", "evidence", "keygen", str(tmp_path / "key"))).code == Exit.OK
    out = ("--out", str(tmp_path / "bundle"), "--without-artifact", "--json")
    ended = await run("", "evidence", f"{job.model}@candidate", *out, **settings)
    assert ended.code == Exit.OK, ended.out
    assert ended.json["records"] == len(job.events)
    verdict = verify_bundle(tmp_path / "bundle", public_key(tmp_path / "key.pub"))
    assert (verdict.holds, verdict.about) == (True, f"{job.model}@{job.version}"), verdict.differences
    assert [check.name for check in verdict.checks if check.verdict == "open"] == ["artifact"]
    again = await run("", "evidence", f"{job.model}@candidate", *out, **settings)
    assert (again.code, "exists already" in again.out) == (Exit.FAILED, True)
    gone = await run("", "evidence", f"{job.model}@9.9.9", **settings)
    assert (gone.code, f"which has {job.version}, candidate" in gone.err) == (Exit.NOT_FOUND, True)
