"""An export is the log, byte for byte; it survives a kill, and whatever is done to it afterwards is found."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import tracemalloc
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from schemas.envelope import encode
from services.audit.export import ChunkLimit, export
from services.audit.findings import SHOWN_FINDINGS, ExportFindings
from services.audit.leaf import RawRecord
from services.audit.manifest import MANIFEST, PLAN, ExportManifest, Unusable
from services.audit.parquet import ExportRow, NoPyarrow, read_rows, write_rows
from services.audit.selection import Selection, records
from services.audit.verdict import NoExport, against_log, verify_export
from services.chassis.kafka.cluster import Cluster
from tests.audit import MadeJob
from tests.command import Ended, run
from tests.log import read_all

Unique = Callable[[str], str]
SMALL = ChunkLimit(records=10)


async def audit(kafka: str, *arguments: str) -> Ended:
    return await run("", "audit", *arguments, NEUROWEAVER_KAFKA_BOOTSTRAP=kafka)


async def make_topic(kafka: str, name: str, partitions: int = 1) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()
    return name


async def fill(kafka: str, topic: str, count: int, size: int = 20, partition: int = 0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=20, max_batch_size=256 * 1024)
    await producer.start()
    for number in range(count):
        body = json.dumps({"job_id": f"job-{number % 7}", "number": number, "filler": "x" * size}).encode()
        headers = [("ce_id", str(number).encode()), ("ce_type", b"neuroweaver.Test"), ("odd", None)]
        await producer.send(topic, body, key=f"job-{number % 7}".encode(), partition=partition, headers=headers)
    await producer.flush()
    await producer.stop()


@pytest.fixture
async def topic(kafka: str, unique: Unique) -> str:
    """A topic of two partitions, one with 55 records and one with garbage and nothing else."""
    name = await make_topic(kafka, unique("export"), 2)
    await fill(kafka, name, 55)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    await producer.send_and_wait(name, b"\xff\x00", key=None, partition=1, headers=[("ce_time", b"\xfe"), ("\u00e4", None)])
    await producer.send_and_wait(name, None, key=b"", partition=1)
    await producer.stop()
    return name


@pytest.fixture
async def exported(kafka: str, topic: str, tmp_path: Path) -> Path:
    """An export of it, in several files."""
    folder = tmp_path / "export"
    await export(Cluster(kafka), folder, [topic], limit=SMALL)
    return folder


def files(folder: Path, partition: int = 0) -> list[Path]:
    return sorted(folder.glob(f"*/{partition}/*.parquet"))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def manifest_of(folder: Path) -> ExportManifest:
    return ExportManifest.model_validate_json((folder / MANIFEST).read_bytes())


async def test_an_export_holds_every_record_of_the_log_byte_for_byte_and_readable_columns(
    kafka: str, topic: str, exported: Path
) -> None:
    on_the_log = [
        (r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
        for r in await read_all(kafka, topic)
    ]
    rows = [row for number in (0, 1) for path in files(exported, number) for row in read_rows(path)]
    assert sorted(tuple(row.record) for row in rows) == sorted(on_the_log)
    assert len(files(exported)) == 6
    table = pq.read_table(files(exported)[0]).to_pylist()
    assert (table[3]["id"], table[3]["type"], table[3]["job_id"]) == ("3", "neuroweaver.Test", "job-3")
    assert names_in(exported) == {topic, MANIFEST}
    manifest = manifest_of(exported)
    assert [(part.records, part.begin, part.end) for part in manifest.partitions] == [(55, 0, 55), (2, 0, 2)]
    assert manifest.software.startswith("neuroweaver ")


async def test_an_event_of_a_real_job_has_its_envelope_in_columns(tmp_path: Path) -> None:
    event = MadeJob("job-1", "router").events[1]
    value, headers = encode(event)
    write_rows(tmp_path / "x.parquet", [ExportRow.of(RawRecord("t", 0, 5, 7, b"job-1", value, tuple(headers)), 0)])
    (found,) = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert (found["type"], found["id"], found["job_id"]) == (f"neuroweaver.{event.data.type_name()}", event.id, "job-1")
    assert (found["time"], found["sequence"], found["causation_id"]) == (event.time, 1, event.causation_id)


async def test_an_untouched_export_holds_also_against_the_log(kafka: str, exported: Path) -> None:
    verdict = verify_export(exported)
    assert (verdict.complete, verdict.holds, verdict.findings) == (True, True, 0)
    assert (await against_log(Cluster(kafka), exported, verdict)).holds


def rewrite(path: Path, change: Callable[[list[ExportRow]], list[ExportRow]]) -> None:
    rows = change(list(read_rows(path)))
    write_rows(path, rows)


def altered(rows: list[ExportRow]) -> list[ExportRow]:
    """The third record says something else; what was noted beside it is left."""
    third = rows[2]
    return [*rows[:2], third._replace(record=third.record._replace(value=b'{"number": 999}')), *rows[3:]]


def altered_with_its_notes(rows: list[ExportRow]) -> list[ExportRow]:
    return [*rows[:2], ExportRow.of(rows[2].record._replace(value=b'{"number": 999}'), rows[2].number), *rows[3:]]


def header_altered(rows: list[ExportRow]) -> list[ExportRow]:
    return [rows[0]._replace(record=rows[0].record._replace(headers=(("ce_id", b"other"),))), *rows[1:]]


def time_altered(rows: list[ExportRow]) -> list[ExportRow]:
    return [ExportRow.of(rows[0].record._replace(timestamp=1), rows[0].number), *rows[1:]]


def column_altered(rows: list[ExportRow]) -> list[ExportRow]:
    return [rows[0]._replace(envelope=replace(rows[0].envelope, job_id="another")), *rows[1:]]


def dropped(rows: list[ExportRow]) -> list[ExportRow]:
    return [*rows[:4], *rows[5:]]


def last_dropped(rows: list[ExportRow]) -> list[ExportRow]:
    return rows[:-1]


def added(rows: list[ExportRow]) -> list[ExportRow]:
    return [*rows, ExportRow.of(rows[-1].record._replace(offset=rows[-1].record.offset, key=b"new"), rows[-1].number)]


def moved(rows: list[ExportRow]) -> list[ExportRow]:
    return [rows[1], rows[0], *rows[2:]]


def moved_with_notes(rows: list[ExportRow]) -> list[ExportRow]:
    first, second = rows[0].record, rows[1].record
    swapped = [second._replace(offset=first.offset), first._replace(offset=second.offset)]
    return [*(ExportRow.of(record, n + rows[0].number) for n, record in enumerate(swapped)), *rows[2:]]


TAMPERINGS = [
    (altered, ":12: the record was changed"),
    (altered_with_its_notes, "the records lead to root"),
    (header_altered, ":10: the record was changed"),
    (time_altered, "the records lead to root"),
    (column_altered, ":10: the decoded columns differ from the record"),
    (dropped, "is in the place of record 14"),
    (last_dropped, "is in the place of record 19"),
    (added, "it follows offset 19"),
    (moved, "it follows offset 11"),
    (moved_with_notes, "the records lead to root"),
]


@pytest.mark.parametrize(("change", "says"), TAMPERINGS)
async def test_whatever_is_done_to_records_is_found(
    exported: Path, change: Callable[[list[ExportRow]], list[ExportRow]], says: str
) -> None:
    path = files(exported)[1]
    rewrite(path, change)
    verdict = verify_export(exported)
    assert verdict.complete
    assert not verdict.holds
    assert any(says in finding for finding in verdict.shown), verdict.shown
    assert any(f"{path.name}: its SHA-256 is" in finding for finding in verdict.shown)
    adapted(exported, path)  # whoever changes the manifest's word about the file, too, is found as well
    verdict = verify_export(exported)
    assert any(says in finding for finding in verdict.shown), verdict.shown


def adapted(folder: Path, path: Path) -> None:
    """Make the manifest say of a file what it is now."""
    text = json.loads((folder / MANIFEST).read_text())
    for partition in text["partitions"]:
        for file in partition["files"]:
            if path.name in file["path"]:
                file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(text))


async def test_files_that_are_missing_foreign_damaged_or_exchanged_are_found(exported: Path, tmp_path: Path) -> None:
    def findings_after(change: Callable[[Path], object]) -> tuple[str, ...]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(exported, copy)
        change(copy)
        verdict = verify_export(copy)
        assert not verdict.holds
        return verdict.shown

    def exchange(folder: Path) -> None:
        one, other = files(folder)[:2]
        one.rename(one.with_suffix(".x"))
        other.rename(one)
        one.with_suffix(".x").rename(other)

    def damage(folder: Path) -> None:
        content = bytearray(files(folder)[0].read_bytes())
        content[len(content) // 3] ^= 1
        files(folder)[0].write_bytes(bytes(content))

    assert any("missing" in text for text in findings_after(lambda folder: files(folder)[2].unlink()))
    assert any("not part of the export" in text for text in findings_after(lambda f: (f / "more.parquet").write_bytes(b"")))
    assert any("SHA-256" in text for text in findings_after(damage))
    assert any("SHA-256" in text for text in findings_after(exchange))
    assert any("cannot be read" in text for text in findings_after(lambda folder: files(folder)[0].write_bytes(b"PAR1")))


async def test_a_forged_manifest_is_found_by_whoever_kept_a_root_or_the_digest(exported: Path, topic: str) -> None:
    kept = verify_export(exported)
    root = {(topic, 0): kept.partitions[0].root}
    rewrite(files(exported)[1], altered_with_its_notes)
    adapted(exported, files(exported)[1])
    text = json.loads((exported / MANIFEST).read_text())
    text["partitions"][0]["root"] = verify_export(exported).partitions[0].root
    (exported / MANIFEST).write_text(json.dumps(text))
    assert verify_export(exported).holds  # so well can it be forged, which docs/audit.md says
    pinned = verify_export(exported, pinned=root)
    assert not pinned.holds
    assert any("--root says" in finding for finding in pinned.shown)
    assert not verify_export(exported, digest=kept.manifest_sha256).holds
    with pytest.raises(Unusable, match="has no such partition"):
        verify_export(exported, pinned={("other", 0): "0" * 64})


async def test_a_forged_export_differs_from_the_log(kafka: str, exported: Path) -> None:
    rewrite(files(exported)[1], altered_with_its_notes)
    rewrite(files(exported)[2], dropped)
    found = (await against_log(Cluster(kafka), exported, verify_export(exported))).shown
    assert any(":12: the export differs from the log" in finding for finding in found)
    assert any(":24: the log has this record, and the export does not" in finding for finding in found)


async def test_a_partition_that_was_taken_out_of_the_manifest_is_missed_by_the_log(kafka: str, exported: Path) -> None:
    text = json.loads((exported / MANIFEST).read_text())
    text["partitions"].pop()
    (exported / MANIFEST).write_text(json.dumps(text))
    shutil.rmtree(files(exported, 1)[0].parent)
    verdict = verify_export(exported)
    assert verdict.holds
    (finding,) = (await against_log(Cluster(kafka), exported, verdict)).shown
    assert ":1: the log has this partition, and the export does not" in finding


async def test_a_manifest_that_is_none_is_refused_and_names_the_field(exported: Path) -> None:
    path = exported / MANIFEST
    text = json.loads(path.read_text())
    for change, says in (
        ({"format": 99}, "format 99 is unknown to this version"),
        ({"cluster_id": None}, "cluster_id"),
        ({"surprise": 1}, "surprise"),
    ):
        path.write_text(json.dumps({**text, **change}))
        with pytest.raises(Unusable, match=says):
            verify_export(exported)
    escaping = json.loads(json.dumps(text).replace('"path": "', '"path": "../'))
    path.write_text(json.dumps(escaping))
    with pytest.raises(Unusable, match="is not that of a file of"):
        verify_export(exported)


@pytest.mark.parametrize("offset", [0, 31, 54])
async def test_a_record_is_proved_by_hashes_that_anybody_can_compute(exported: Path, topic: str, offset: int) -> None:
    proof = verify_export(exported, record=(topic, 0, offset)).proof
    assert proof is not None
    at = hashlib.sha256(b"\x00" + b64decode(proof.leaf)).digest()
    for sibling in proof.path:
        other = bytes.fromhex(sibling.sha256)
        at = hashlib.sha256(b"\x01" + (other + at if sibling.side == "left" else at + other)).digest()
    assert at.hex() == manifest_of(exported).partitions[0].root
    assert f'"number": {offset},'.encode() in b64decode(proof.leaf)
    assert len(proof.path) <= 6


async def test_there_is_no_proof_of_a_record_that_is_not_there_or_of_a_partition_that_was_touched(
    exported: Path, topic: str
) -> None:
    for place in ((topic, 0, 55), (topic, 7, 0), ("other", 0, 0)):
        with pytest.raises(NoExport):
            verify_export(exported, record=place)
    rewrite(files(exported)[1], altered)
    verdict = verify_export(exported, record=(topic, 0, 3))
    assert verdict.proof is None
    assert any("there is no proof" in finding for finding in verdict.shown)


async def test_the_commands_say_it_and_end_with_their_codes(kafka: str, topic: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "export")
    made = await audit(kafka, "export", "--to", folder, "--topic", topic, "--json")
    assert made.code == 0, made.err
    digest = made.json["manifest_sha256"]
    root = made.json["manifest"]["partitions"][0]["root"]
    again = await audit(kafka, "export", "--to", folder, "--topic", topic)
    assert again.code == 0
    assert digest in again.out
    assert root in again.out
    assert "is complete already" in again.err
    good = await audit(
        kafka, "verify-export", folder, "--root", f"{topic}:0={root}", "--digest", digest, "--record", f"{topic}:0:7"
    )
    assert good.code == 0, good.err
    assert "is as it was exported" in good.out
    assert f"root   {root}" in good.out
    for arguments, code, says in (
        (("verify-export", folder, "--record", f"{topic}:0:900"), 4, "no record at this offset"),
        (("verify-export", folder, "--record", "nonsense"), 2, "does not name a record"),
        (("verify-export", folder, "--root", "nonsense"), 2, "is not a root"),
        (("verify-export", folder, "--digest", "nonsense"), 2, "is not a SHA-256"),
        (("verify-export", str(tmp_path / "nowhere")), 4, "contains no export"),
        (("export", "--to", folder, "--topic", "neuroweaver.jobs"), 1, "an export of other topics"),
        (("export", "--to", str(tmp_path / "x"), "--topic", "nowhere"), 4, "no topic 'nowhere'"),
    ):
        ended = await audit(kafka, *arguments)
        assert (ended.code, says in ended.err) == (code, True), (arguments, ended)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    taken = await audit(kafka, "export", "--to", str(tmp_path / "other"), "--topic", topic)
    assert taken.code == 1
    assert "thesis.txt" in taken.err
    rewrite(files(tmp_path / "export")[0], altered)
    bad = await audit(kafka, "verify-export", folder)
    assert bad.code == 1
    assert "is NOT as it was exported" in bad.out
    assert f"! {topic}:0:2: the record was changed" in bad.out


_DIES_AFTER_TWO_CHUNKS = """
import os, signal
from services.audit import export, parquet
from services.cli.main import app
export.export.__kwdefaults__["limit"] = export.ChunkLimit(records=400)
real, written = parquet.write_rows, []
def write_rows(path, rows):
    real(path, rows)
    written.append(path)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
export.parquet.write_rows = write_rows
app()
"""


async def test_an_export_killed_in_the_middle_is_partial_and_the_next_run_ends_it(
    kafka: str, unique: Unique, tmp_path: Path
) -> None:
    topic = await make_topic(kafka, unique("killed"), 2)
    await fill(kafka, topic, 900)
    await fill(kafka, topic, 50, partition=1)
    folder = tmp_path / "export"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DIES_AFTER_TWO_CHUNKS, "audit", "export", "--to", str(folder), "--topic", topic,
        env={**os.environ, "NEUROWEAVER_KAFKA_BOOTSTRAP": kafka}, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await process.wait() == -signal.SIGKILL
    survived = {path: path.stat().st_ino for path in files(folder)}
    assert not (folder / MANIFEST).exists()
    partial = await audit(kafka, "verify-export", str(folder))
    assert partial.code == 1
    assert "is partial" in partial.out
    assert "NOT complete" in partial.out
    (folder / topic / "0" / ".00000000000000099999.parquet.partial").write_bytes(b"half a chunk")
    await fill(kafka, topic, 10)  # what comes later is no part of it
    resumed = await audit(kafka, "export", "--to", str(folder), "--topic", topic)
    assert resumed.code == 0, resumed.err
    assert {path: path.stat().st_ino for path in survived} == survived
    assert [partition.records for partition in manifest_of(folder).partitions] == [900, 50]
    assert not (folder / PLAN).exists()
    whole = verify_export(folder)
    assert whole.holds, whole.shown
    assert (await against_log(Cluster(kafka), folder, whole)).holds
    at_once, _ = await export(Cluster(kafka), tmp_path / "at once", [topic])
    assert manifest_of(folder).partitions[1].root == at_once.partitions[1].root


async def test_a_chunk_changed_between_two_runs_is_not_taken_up(kafka: str, topic: str, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    await interrupted(kafka, folder, topic)
    rewrite(files(folder)[1], altered)
    with pytest.raises(Unusable, match="offset 12 is not as it was exported; remove this file and later ones"):
        await export(Cluster(kafka), folder, [topic], limit=SMALL)


async def interrupted(kafka: str, folder: Path, topic: str) -> None:
    """An export that stopped after three files."""
    await export(Cluster(kafka), folder, [topic], limit=SMALL)
    manifest = manifest_of(folder)
    plan = manifest.model_dump(mode="json", include={"format", "cluster_id", "planned_at"})
    parts = [part.model_dump(include={"topic", "partition", "begin", "end"}) for part in manifest.partitions]
    (folder / PLAN).write_text(json.dumps({**plan, "partitions": parts}))
    (folder / MANIFEST).unlink()
    for path in [*files(folder)[3:], *files(folder, 1)]:
        path.unlink()


async def test_an_export_whose_records_are_gone_or_of_another_cluster_is_not_ended(
    kafka: str, topic: str, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    await interrupted(kafka, folder, topic)
    text = json.loads((folder / PLAN).read_text())
    (folder / PLAN).write_text(json.dumps({**text, "cluster_id": "another"}))
    with pytest.raises(Unusable, match="of Kafka cluster another"):
        await export(Cluster(kafka), folder, [topic], limit=SMALL)
    (folder / PLAN).write_text(json.dumps(text))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=40)})
    await admin.close()
    with pytest.raises(Unusable, match="holds offsets 40 to 55 now and the export needs 30 to 55"):
        await export(Cluster(kafka), folder, [topic], limit=SMALL)


async def test_gaps_of_transactions_are_no_records_and_no_findings(kafka: str, unique: Unique, tmp_path: Path) -> None:
    topic = await make_topic(kafka, unique("gaps"))
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=unique("tx"))
    await producer.start()
    for number in range(3):
        async with producer.transaction():
            await producer.send_and_wait(topic, str(number).encode())
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"never happened")
    await producer.abort_transaction()
    await producer.stop()
    manifest, _ = await export(Cluster(kafka), tmp_path / "export", [topic])
    assert [row.record.offset for row in read_rows(files(tmp_path / "export")[0])] == [0, 2, 4]
    assert (manifest.partitions[0].records, manifest.partitions[0].end) == (3, 8)
    verdict = verify_export(tmp_path / "export", record=(topic, 0, 4))
    assert verdict.holds
    assert (await against_log(Cluster(kafka), tmp_path / "export", verdict)).holds


async def test_two_exports_do_not_write_into_one_folder(kafka: str, topic: str, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(Unusable, match="another export is writing"):
        await export(Cluster(kafka), folder, [topic])
    os.close(descriptor)
    await export(Cluster(kafka), folder, [topic])


async def test_without_pyarrow_the_commands_say_how_to_get_it(
    kafka: str, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(NoPyarrow, match=r"pip install 'neuroweaver\[audit\]'"):
        await export(Cluster(kafka), tmp_path / "export", [topic])
    assert not (tmp_path / "export").exists()
    with pytest.raises(NoPyarrow):
        verify_export(tmp_path)


_POOLS = list[pa.MemoryPool]()
"""Pools that were used: a buffer refers to its pool without holding it, and what frees it later would find nothing."""


async def test_memory_is_bounded_by_a_chunk_whatever_the_log_holds(kafka: str, unique: Unique, tmp_path: Path) -> None:
    """Eight times the records take no more of Python's or of Arrow's memory, in export, verification or replay."""
    limit = ChunkLimit(records=150)
    peaks = {}
    for count in (600, 600, 4_800):  # the first imports what the others use, which is much larger
        topic = await make_topic(kafka, unique("memory"))
        await fill(kafka, topic, count, size=3000)
        folder = tmp_path / topic
        pool = pa.proxy_memory_pool(pa.system_memory_pool())
        _POOLS.append(pool)
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            await export(Cluster(kafka), folder, [topic], limit=limit)
            exporting = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            verdict = verify_export(folder, record=(topic, 0, count // 2))
            assert verdict.holds
            await against_log(Cluster(kafka), folder, verdict)
            verifying = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            async with records(Cluster(kafka), Selection(topics=(topic,))) as selected:
                assert len([None async for _ in selected]) == count
            peaks[count] = (exporting, verifying, tracemalloc.get_traced_memory()[1], pool.max_memory())
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)
    for small, large in zip(peaks[600], peaks[4_800], strict=True):
        assert large < 2 * small, peaks


def test_a_verdict_counts_all_findings_and_shows_the_first() -> None:
    findings = ExportFindings()
    for number in range(SHOWN_FINDINGS + 50):
        findings.add(str(number))
    assert (findings.count, len(findings.shown)) == (SHOWN_FINDINGS + 50, SHOWN_FINDINGS)
