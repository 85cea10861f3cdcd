"""Whatever is done to a bundle is found, by the name of the file and in words; a hostile one takes neither memory nor the process."""

import base64
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.bundle import technical_file
from services.audit.bundle.bom import BOM
from services.audit.bundle.cited import canonical
from services.audit.bundle.documents import CITATIONS, KEY, derive
from services.audit.bundle.dsse import public_pem, sign
from services.audit.bundle.limits import FILE_BYTES
from services.audit.bundle.log_view import LOG
from services.audit.bundle.model_card import CARD
from services.audit.bundle.record_lines import RECORDS, ProvenRecord, record_in
from services.audit.bundle.record_lines import lines as lines_of
from services.audit.bundle.statement import STATEMENT
from services.audit.bundle.verifying import BundleVerdict, NoBundle, verify_bundle
from services.audit.leaf import RawRecord
from tests.bundle import SIGNER, artifact_in, bundle_in, collected, events_of, json_of, raw_records

PUBLIC = SIGNER.public_key()
FORGER = Ed25519PrivateKey.from_private_bytes(b"\x13" * 32)
WEIGHTS = "artifact/adapter_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_in(tmp_path_factory.mktemp("made"))


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "bundle")


def change(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def lines(bundle: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bundle / RECORDS).read_bytes().splitlines()]


def write_lines(bundle: Path, records: list[dict[str, Any]]) -> None:
    (bundle / RECORDS).write_bytes(b"".join(canonical(record) + b"\n" for record in records))


def registration(bundle: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    records = lines(bundle)
    return records, next(record for record in records if b'"lineage"' in base64.b64decode(record["value"] or ""))


def a_byte_of_a_weight_file(bundle: Path) -> None:
    change(bundle / WEIGHTS, b"\x41\x42", b"\x41\x43")


def a_byte_behind_a_weight_file(bundle: Path) -> None:
    with (bundle / WEIGHTS).open("ab") as file:
        file.write(b"!")


def a_weight_file_of_a_terabyte(bundle: Path) -> None:
    os.truncate(bundle / WEIGHTS, 2**40)


def a_file_more_in_the_artifact(bundle: Path) -> None:
    (bundle / "artifact" / "extra.json").write_text("{}")


def a_file_less_in_the_artifact(bundle: Path) -> None:
    (bundle / "artifact" / "adapter_config.json").unlink()


def another_manifest_of_the_artifact(bundle: Path) -> None:
    a_byte_of_a_weight_file(bundle)
    change(bundle / "artifact" / "manifest.json", b'"size":4096', b'"size":4097')


def a_link_in_the_artifact(bundle: Path) -> None:
    (bundle / WEIGHTS).rename(bundle.parent / "weights")
    (bundle / WEIGHTS).symlink_to(bundle.parent / "weights")


def an_artifact_that_is_a_link(bundle: Path) -> None:
    (bundle / "artifact").rename(bundle.parent / "artifact")
    (bundle / "artifact").symlink_to(bundle.parent / "artifact")


def a_pipe_in_the_artifact(bundle: Path) -> None:
    (bundle / "artifact" / "manifest.json").unlink()
    os.mkfifo(bundle / "artifact" / "manifest.json")


def a_value_of_a_record(bundle: Path) -> None:
    records, made = registration(bundle)
    made["value"] = base64.b64encode(base64.b64decode(made["value"]).replace(b"0.75", b"0.95")).decode()
    write_lines(bundle, records)


def a_header_of_a_record(bundle: Path) -> None:
    records, made = registration(bundle)
    made["headers"][-1][1] = base64.b64encode(b"text/plain").decode()
    write_lines(bundle, records)


def the_time_of_a_record(bundle: Path) -> None:
    records, made = registration(bundle)
    made["timestamp"] += 1
    write_lines(bundle, records)


def the_offset_of_a_record(bundle: Path) -> None:
    records, made = registration(bundle)
    made["offset"] += 1
    write_lines(bundle, records)


def two_records_exchanged(bundle: Path) -> None:
    records = lines(bundle)
    for name in ("key", "headers", "value", "timestamp"):
        records[0][name], records[1][name] = records[1][name], records[0][name]
    write_lines(bundle, records)


def a_record_with_the_proof_of_another(bundle: Path) -> None:
    records = lines(bundle)
    for name in ("leaf", "path"):
        records[0][name] = records[1][name]
    write_lines(bundle, records)


def a_record_with_the_index_of_another(bundle: Path) -> None:
    records = lines(bundle)
    records[0]["leaf"] = records[1]["leaf"]
    write_lines(bundle, records)


def a_record_less(bundle: Path) -> None:
    write_lines(bundle, lines(bundle)[1:])


def a_record_twice(bundle: Path) -> None:
    write_lines(bundle, [lines(bundle)[0], *lines(bundle)])


def records_in_another_order(bundle: Path) -> None:
    write_lines(bundle, lines(bundle)[::-1])


def no_record(bundle: Path) -> None:
    (bundle / RECORDS).write_bytes(b"")


def a_blank_in_a_record(bundle: Path) -> None:
    change(bundle / RECORDS, b'"leaf":', b'"leaf": ')


def a_name_twice_in_a_record(bundle: Path) -> None:
    change(bundle / RECORDS, b'"leaf":', b'"leaf":0,"leaf":')


def another_root(bundle: Path) -> None:
    root = json_of(bundle / LOG)["partitions"][0]["root"].encode()
    change(bundle / LOG, root, root[::-1])


def another_size_of_a_tree(bundle: Path) -> None:
    size = json_of(bundle / LOG)["partitions"][0]["records"]
    change(bundle / LOG, b'"records": %d' % size, b'"records": %d' % (size + 1))


def another_version(bundle: Path) -> None:
    change(bundle / LOG, b'"1.0.0"', b'"2.0.0"')


def another_cluster(bundle: Path) -> None:
    change(bundle / LOG, b"cluster-of-tests", b"cluster-of-others")


def a_name_twice_in_the_view_of_the_log(bundle: Path) -> None:
    change(bundle / LOG, b' "version":', b' "version": "9.9.9",\n "version":')


def a_truncated_view_of_the_log(bundle: Path) -> None:
    (bundle / LOG).write_bytes((bundle / LOG).read_bytes()[:-20])


def deep_json(bundle: Path) -> None:
    (bundle / LOG).write_bytes(b"[" * 1_000_000)


def a_statement_about_another_artifact(bundle: Path) -> None:
    envelope = json_of(bundle / STATEMENT)
    body = base64.b64decode(envelope["payload"])
    (bundle / STATEMENT).write_bytes(sign(body.replace(b'"router@1.0.0"', b'"router@1.0.1"'), FORGER))


def a_signature_of_another_key(bundle: Path) -> None:
    body = base64.b64decode(json_of(bundle / STATEMENT)["payload"])
    (bundle / STATEMENT).write_bytes(sign(body, FORGER))
    (bundle / KEY).write_bytes(public_pem(FORGER.public_key()))


def the_key_of_another(bundle: Path) -> None:
    (bundle / KEY).write_bytes(public_pem(FORGER.public_key()))


def a_signature_that_is_none(bundle: Path) -> None:
    envelope = json_of(bundle / STATEMENT)
    change(bundle / STATEMENT, envelope["signatures"][0]["sig"].encode(), base64.b64encode(b"no signature" * 5))


def another_name_of_the_key(bundle: Path) -> None:
    change(bundle / STATEMENT, b'"keyid": "', b'"keyid": "0')


def a_signature_twice(bundle: Path) -> None:
    envelope = json_of(bundle / STATEMENT)
    (bundle / STATEMENT).write_text(json.dumps({**envelope, "signatures": envelope["signatures"] * 2}, indent=1) + "\n")


def no_signature(bundle: Path) -> None:
    envelope = json_of(bundle / STATEMENT)
    (bundle / STATEMENT).write_text(json.dumps({**envelope, "signatures": []}))


def another_type_of_payload(bundle: Path) -> None:
    change(bundle / STATEMENT, b"vnd.in-toto+json", b"json")


def a_truncated_statement(bundle: Path) -> None:
    (bundle / STATEMENT).write_bytes((bundle / STATEMENT).read_bytes()[:500])


def a_name_twice_in_the_statement(bundle: Path) -> None:
    change(bundle / STATEMENT, b' "payloadType":', b' "payloadType": "x",\n "payloadType":')


def a_changed_card(bundle: Path) -> None:
    change(bundle / CARD, b"0.75", b"0.95")


def a_changed_bill_of_materials(bundle: Path) -> None:
    change(bundle / BOM, b'"2.13.0"', b'"2.13.1"')


def a_name_twice_in_the_bill_of_materials(bundle: Path) -> None:
    change(bundle / BOM, b' "version": 1,', b' "version": 2,\n "version": 1,')


def a_changed_technical_file(bundle: Path) -> None:
    change(bundle / technical_file.TEXT, b"42000000", b"41000000")


def a_changed_technical_file_for_programs(bundle: Path) -> None:
    change(bundle / technical_file.JSON, b"42000000", b"41000000")


def a_changed_citation(bundle: Path) -> None:
    change(bundle / CITATIONS, b"@2#/model", b"@4#/model")


def a_missing_document(bundle: Path) -> None:
    (bundle / CARD).unlink()


def a_foreign_file(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("trust me")


def a_hidden_file(bundle: Path) -> None:
    (bundle / ".env").write_text("")


def a_document_that_is_a_link(bundle: Path) -> None:
    (bundle / CARD).rename(bundle.parent / "card")
    (bundle / CARD).symlink_to(bundle.parent / "card")


def a_document_that_is_a_pipe(bundle: Path) -> None:
    (bundle / RECORDS).unlink()
    os.mkfifo(bundle / RECORDS)


def a_document_that_is_a_folder(bundle: Path) -> None:
    (bundle / BOM).unlink()
    (bundle / BOM).mkdir()


def a_huge_document(bundle: Path) -> None:
    os.truncate(bundle / CARD, FILE_BYTES + 1)


def records_that_are_huge(bundle: Path) -> None:
    os.truncate(bundle / RECORDS, 50 * 2**30)


FORGERIES: dict[Callable[[Path], None], str] = {
    a_byte_of_a_weight_file: f"{WEIGHTS}: expected sha256 ",
    a_byte_behind_a_weight_file: f"{WEIGHTS}: expected 4096 bytes, found 4097 bytes",
    a_weight_file_of_a_terabyte: f"{WEIGHTS}: expected 4096 bytes, found {2**40} bytes",
    a_file_more_in_the_artifact: "artifact/extra.json: expected nothing (the manifest does not name it), found a file",
    a_file_less_in_the_artifact: "artifact/adapter_config.json: expected a file, found nothing",
    another_manifest_of_the_artifact: "artifact/manifest.json: expected sha256 ",
    a_link_in_the_artifact: "adapter_model.safetensors is a link or a device",
    an_artifact_that_is_a_link: "artifact: expected a folder, found a link",
    a_pipe_in_the_artifact: "manifest.json is a link or a device",
    a_value_of_a_record: "records.jsonl neuroweaver.models[0]@2: expected a proof of leaf 1 of 3 for root ",
    a_header_of_a_record: "records.jsonl neuroweaver.models[0]@2: expected a proof of leaf 1 of 3 for root ",
    the_time_of_a_record: "records.jsonl neuroweaver.models[0]@2: expected a proof of leaf 1 of 3 for root ",
    the_offset_of_a_record: "records.jsonl neuroweaver.models[0]@3: expected a proof of leaf 1 of 3 for root ",
    two_records_exchanged: "records.jsonl neuroweaver.jobs[0]@2: expected a proof of leaf 1 of ",
    a_record_with_the_proof_of_another: "records.jsonl neuroweaver.jobs[0]@2: expected a proof of leaf 2 of ",
    a_record_with_the_index_of_another: "records.jsonl neuroweaver.jobs[0]@2: expected a proof of leaf 2 of ",
    a_record_less: "statement.dsse.json payload /predicate",
    a_record_twice: "records.jsonl: expected each record once, by topic, partition and offset",
    records_in_another_order: "records.jsonl: expected each record once, by topic, partition and offset",
    no_record: "records.jsonl: expected records, found none",
    a_blank_in_a_record: "records.jsonl line 1: expected the one spelling of this record, found another one",
    a_name_twice_in_a_record: "records.jsonl line 1: expected the one spelling of this record, found another one",
    another_root: "records.jsonl neuroweaver.jobs[0]@2: expected a proof of leaf 1 of ",
    another_size_of_a_tree: "records.jsonl neuroweaver.jobs[0]@",
    another_version: "no record registers router@2.0.0",
    another_cluster: "statement.dsse.json payload /predicate/runDetails/byproducts/",
    a_name_twice_in_the_view_of_the_log: "log.json: expected the one spelling of its JSON",
    a_truncated_view_of_the_log: "log.json: expected a view of the log, found the whole: Invalid JSON",
    deep_json: "log.json: expected a view of the log, found the whole: Invalid JSON",
    a_statement_about_another_artifact: 'payload /subject/0/name: expected "router@1.0.0", found "router@1.0.1"',
    a_signature_of_another_key: "statement.dsse.json: expected a signature of the key you gave, ",
    the_key_of_another: "public-key.pem: expected a copy of the key you gave, ",
    a_signature_that_is_none: "statement.dsse.json: expected a signature of the key you gave, ",
    another_name_of_the_key: "statement.dsse.json: expected a signature of the key you gave, ",
    a_signature_twice: "statement.dsse.json: expected a DSSE envelope, found signatures: ",
    no_signature: "statement.dsse.json: expected a DSSE envelope, found signatures: ",
    another_type_of_payload: "statement.dsse.json: expected payloadType application/vnd.in-toto+json, found application/json",
    a_truncated_statement: "statement.dsse.json: expected a DSSE envelope, found the whole: Invalid JSON",
    a_name_twice_in_the_statement: "statement.dsse.json: expected the one spelling of its JSON",
    a_changed_card: "README.md line ",
    a_changed_bill_of_materials: "bom.cdx.json /components/",
    a_name_twice_in_the_bill_of_materials: "bom.cdx.json: expected the one spelling of its JSON",
    a_changed_technical_file: "technical-file.md line ",
    a_changed_technical_file_for_programs: "technical-file.json /sections/5/facts/",
    a_changed_citation: "citations.json /",
    a_missing_document: "README.md: expected a file, found nothing",
    a_foreign_file: "notes.txt: expected nothing, found file",
    a_hidden_file: ".env: expected nothing, found file",
    a_document_that_is_a_link: "README.md: expected a file, found a link",
    a_document_that_is_a_pipe: "records.jsonl: expected a file, found a pipe or a device",
    a_document_that_is_a_folder: "bom.cdx.json: expected a file, found folder",
    a_huge_document: f"README.md: expected at most {FILE_BYTES} bytes, found {FILE_BYTES + 1} bytes",
    records_that_are_huge: f"records.jsonl: expected at most {FILE_BYTES} bytes, found {50 * 2**30} bytes",
}


def said(verdict: BundleVerdict) -> str:
    return "\n".join(map(str, verdict.differences))


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forgery_is_found_and_named(bundle: Path, forge: Callable[[Path], None]) -> None:
    forge(bundle)
    verdict = verify_bundle(bundle, PUBLIC)
    assert not verdict.holds
    assert FORGERIES[forge] in said(verdict), said(verdict)
    assert verify_bundle(bundle).holds == (forge is a_signature_of_another_key), "only who signed needs a key"


def test_a_whole_bundle_that_a_forger_made_is_found_only_with_the_key_of_who_should_have_signed(
    bundle: Path, tmp_path: Path
) -> None:
    """Records, trees, documents and signature fit each other: nothing but the key tells it from a true one."""
    (tmp_path / "forger").mkdir()
    artifact = artifact_in(tmp_path / "forger" / "store")
    false = [
        record._replace(value=(record.value or b"").replace(b"0.75", b"0.99"))
        for record in raw_records(events_of(artifact))
    ]
    view, records, _ = collected(false)
    derived = derive(view, records)
    for name, content in derived.files.items():
        (bundle / name).write_bytes(content)
    (bundle / STATEMENT).write_bytes(sign(derived.statement, FORGER))
    assert [check.name for check in verify_bundle(bundle).checks if check.verdict == "differs"] == ["signature"]
    (bundle / KEY).write_bytes(public_pem(FORGER.public_key()))
    assert (verify_bundle(bundle).holds, verify_bundle(bundle).signer) == (True, "bundle")
    assert (verify_bundle(bundle, PUBLIC).holds, verify_bundle(bundle, PUBLIC).signer) == (False, None)


def test_a_bundle_without_artifact_says_that_it_is_not_compared(bundle: Path) -> None:
    shutil.rmtree(bundle / "artifact")
    verdict = verify_bundle(bundle, PUBLIC)
    (artifact,) = [check for check in verdict.checks if check.name == "artifact"]
    assert (verdict.holds, artifact.verdict) == (True, "open")


CONTENTS = (
    b"", b"{}", b"[]", b"null", b"\xff\xfe", b"\x00" * 9, b'{"a":' * 5000, b"[" * 200_000, b"1" * 100_000, b"\n" * 100_000,
    b'{"a":NaN}', b'"\\ud800"', b'[{"payload":1}]', b"{" + b'"a":1,' * 50_000 + b'"b":1}', b"-----BEGIN PUBLIC KEY-----\n",
)  # fmt: skip


@pytest.mark.parametrize("name", [STATEMENT, LOG, RECORDS, KEY, BOM, CITATIONS, CARD])
def test_no_content_of_a_file_ends_the_verification(bundle: Path, name: str) -> None:
    for content in CONTENTS:
        (bundle / name).write_bytes(content)
        verdict = verify_bundle(bundle)
        assert (verdict.holds, name in said(verdict)) == (False, True), content[:20]


@pytest.mark.parametrize("name", [RECORDS, LOG, STATEMENT, CITATIONS])
def test_memory_is_bounded_whatever_a_file_holds(bundle: Path, name: str) -> None:
    for filler in (b"\n", b"{}\n", b'{"a":[],"b":[[]]}\n', b"[", b'"",', b'{"topic":"t","partition":0,"offset":1}\n'):
        (bundle / name).write_bytes(filler * (8 * 2**20 // len(filler)))
        tracemalloc.start()
        try:
            assert not verify_bundle(bundle, PUBLIC).holds
            assert tracemalloc.get_traced_memory()[1] < 96 * 2**20
        finally:
            tracemalloc.stop()


def test_a_folder_without_a_bundle_is_not_one(tmp_path: Path) -> None:
    with pytest.raises(NoBundle, match="so it is no bundle"):
        verify_bundle(tmp_path)
    with pytest.raises(NoBundle, match="No such file"):
        verify_bundle(tmp_path / "absent")


def test_a_record_of_any_bytes_has_one_line_that_gives_it_back() -> None:
    odd = (("ce_id", b"\xff\x00"), ("\udcff", None), ("a\x00b", b""), ("\ufdd0x", b"1"), ("\u00e4", b"2"), ("", None))
    for key, value in ((None, None), (b"", b""), (b"\x00\xff", b'{"a": "\n"}')):
        record = ProvenRecord(RawRecord("neuroweaver.jobs", 3, 2**40, -1, key, value, odd), 7, ("0" * 64,))
        assert record_in(lines_of([record]), 1) == record
