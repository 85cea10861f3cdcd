"""A bundle has the records about a version and what follows from them: each value of each document is that of a record."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from schemas.envelope import Event
from schemas.jobs import JobAccepted
from schemas.models import ErasedRowsLearnt, Imported, ModelRegistered
from schemas.topics import MODELS
from services.audit.bundle import technical_file
from services.audit.bundle.bom import BOM
from services.audit.bundle.collecting import Collected
from services.audit.bundle.documents import CITATIONS, KEY, derive
from services.audit.bundle.faults import BundleRefused
from services.audit.bundle.log_view import FORMAT
from services.audit.bundle.model_card import CARD
from services.audit.bundle.statement import STATEMENT
from services.audit.bundle.verifying import verify_bundle
from services.audit.bundle.writing import write_bundle
from services.audit.leaf import RawRecord
from tests.audit import artifact, changed
from tests.bundle import FACTS, SIGNER, bundle_in, collected, events_of, json_of, raw_records
from tests.golden import logs

PUBLIC = SIGNER.public_key()
DIGESTS = {
    "statement": "9ee00581c0d5343ef65acc6de65007053ed1271f7f1cc450c1259f4d4916ccc9",
    CITATIONS: "9f389943bb8142310f7a1f1897b2ebbfa1d69a7471a67ab6bd47b43fc15ba9b5",
    BOM: "0b0f899ce5216b74cbfe069b01a7a4fae2b665a93fcd06c2abadfdbaa706ec2f",
    CARD: "1a44e3271ecb6051419588b4fc0afc9a72804f5e3ab466c4d6be0246e53a78e2",
    technical_file.JSON: "de8a52164442490bb8236657e0f3e74515a45e706f768186c969aae288f80e2f",
    technical_file.TEXT: "7d054b372f8b0710e9f13f666d486f5e7946264ecc0472ba8757bf3f4d3b292c",
}
"""What follows in format 1 from the log that release 0.1.0 wrote. If one changes, raise FORMAT: then a reader is told which version
verifies an older bundle, instead of that it was forged."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_in(tmp_path_factory.mktemp("bundle"))


def payload(bundle: Path) -> Any:
    return json.loads(base64.b64decode(json_of(bundle / STATEMENT)["payload"]))


def records(bundle: Path) -> dict[str, Any]:
    """The records of a bundle by the name under which they are cited, read without the project's code."""
    found = {}
    for line in (bundle / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        found[f"{record['topic']}[{record['partition']}]@{record['offset']}"] = record
    return found


def cited(origin: str, known: Mapping[str, Any]) -> Any:
    """What a record says at the place that a citation names."""
    place, sign, rest = re.fullmatch(r"([^#!]*)([#!])(.*)", origin).groups()  # type: ignore[union-attr]
    record = known[place]
    if sign == "!":
        return base64.b64decode(dict(record["headers"])[rest]).decode()
    value = json.loads(base64.b64decode(record["value"]))
    for name in rest.split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else (value or {}).get(name)
    return value


def leaves(value: Any, cited_at: Mapping[str, Any], pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that no citation covers, with its pointer."""
    if pointer in cited_at:
        return
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, cited_at, f"{pointer}/{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from leaves(part, cited_at, f"{pointer}/{number}")
    else:
        yield pointer, value


def at(value: Any, pointer: str) -> Any:
    for name in pointer.split("/")[1:]:
        value = value[int(name)] if isinstance(value, list) else value[name.replace("~1", "/").replace("~0", "~")]
    return value


def metadata_of(bundle: Path) -> Any:
    return yaml.safe_load((bundle / CARD).read_text().split("---\n")[1])


def test_a_bundle_holds_in_another_folder_without_the_store_it_came_from(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "elsewhere")
    verdict = verify_bundle(copy, PUBLIC)
    assert (verdict.holds, verdict.signer, verdict.about) == (True, "given", "router@1.0.0")
    assert {check.verdict for check in verdict.checks} == {"holds"}


def test_the_key_of_the_bundle_itself_proves_nothing_about_who_signed(bundle: Path) -> None:
    verdict = verify_bundle(bundle)
    assert (verdict.holds, verdict.signer) == (True, "bundle")
    (signature,) = [check for check in verdict.checks if check.name == "signature"]
    assert (signature.verdict, "not trusted" in signature.said) == ("open", True)


def test_the_statement_is_signed_as_dsse_says(bundle: Path) -> None:
    envelope = json_of(bundle / STATEMENT)
    body = base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(body)).encode() + b" " + body
    key: Any = load_pem_public_key((bundle / KEY).read_bytes())
    key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)


def test_the_statement_is_about_the_artifact_and_has_roots_and_digests_of_the_bundle(bundle: Path) -> None:
    said = payload(bundle)
    manifest = hashlib.sha256((bundle / "artifact" / "manifest.json").read_bytes()).hexdigest()
    assert said["subject"] == [{"name": "router@1.0.0", "digest": {"sha256": manifest}}]
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    digests = {thing["name"]: thing["digest"] for thing in said["predicate"]["runDetails"]["byproducts"]}
    for seen in json_of(bundle / "log.json")["partitions"]:
        assert digests[f"{seen['topic']}[{seen['partition']}]"] == {"rfc6962Sha256": seen["root"]}
    for name in (BOM, CARD, technical_file.JSON, technical_file.TEXT, "log.json", "records.jsonl"):
        assert digests[name] == {"sha256": hashlib.sha256((bundle / name).read_bytes()).hexdigest()}
    assert [thing["digest"] for thing in said["predicate"]["buildDefinition"]["resolvedDependencies"]] == [
        {"sha256": "b" * 64}, {"sha256": "d" * 64},
    ]  # fmt: skip


def test_the_bill_of_materials_is_valid_by_the_strict_schema_of_cyclonedx(bundle: Path) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((bundle / BOM).read_text()) is None
    card = json_of(bundle / BOM)["metadata"]["component"]["modelCard"]
    (match, rows) = card["quantitativeAnalysis"]["performanceMetrics"]
    assert match == {
        "type": "exact_match",
        "value": "0.75",
        "confidenceInterval": {"lowerBound": "0.5", "upperBound": "0.9"},
    }
    assert rows["type"] == "rows"
    libraries = [part["purl"] for part in json_of(bundle / BOM)["components"] if part["type"] == "library"]
    assert "pkg:pypi/torch@2.13.0" in libraries


def test_the_hub_reads_the_model_card(bundle: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(bundle / CARD)
    assert (card.data.library_name, card.data.pipeline_tag, card.data.model_name) == ("peft", "text-generation", "router")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "exact_match": 0.75,
        "rows": 40.0,
    }


def test_each_value_is_what_the_record_says_that_it_cites(bundle: Path) -> None:
    known = records(bundle)
    front = metadata_of(bundle)
    documents = {"statement": payload(bundle), BOM: json_of(bundle / BOM), CARD: front}
    checked = 0
    for name, citations in json_of(bundle / CITATIONS).items():
        for pointer, source in citations.items():
            value = at(documents[name], pointer)
            if "rule" in source:
                continue
            (origin,) = source["from"]
            said = cited(origin, known)
            assert value == said or value == repr(said), f"{name} {pointer}"
            checked += 1
    for section in json_of(bundle / technical_file.JSON)["sections"]:
        for fact in section["facts"]:
            if "rule" not in fact and fact["from"]:
                assert fact["value"] == cited(fact["from"][0], known), fact["name"]
                checked += 1
    assert checked > 80


def test_what_cites_no_record_is_a_word_of_the_formats_or_what_the_reader_saw(bundle: Path) -> None:
    documents = {"statement": payload(bundle), BOM: json_of(bundle / BOM), CARD: metadata_of(bundle)}
    citations = json_of(bundle / CITATIONS)
    bare = {
        name: {re.sub(r"/\d+", "/*", pointer) for pointer, _ in leaves(document, citations[name])}
        for name, document in documents.items()
    }
    inputs, outputs = "/predicate/buildDefinition/resolvedDependencies/*", "/predicate/runDetails/byproducts/*"
    seen = {f"{outputs}/annotations/{name}" for name in ("records", "begin", "end", "cluster", "readAt", "readBy")}
    assert bare["statement"] == {
        "/_type", "/predicateType", "/predicate/buildDefinition/buildType", f"{inputs}/annotations/role", f"{outputs}/name",
        f"{outputs}/digest/sha256", f"{outputs}/digest/rfc6962Sha256", *seen,
    }  # fmt: skip
    refs = {"/dependencies/*/ref", "/dependencies/*/dependsOn/*", "/components/*/bom-ref", "/metadata/component/bom-ref"}
    assert bare[BOM] - refs == {
        "/$schema", "/bomFormat", "/specVersion", "/version", "/metadata/component/type", "/metadata/component/hashes/*/alg",
        "/components/*/type", "/components/*/name", "/components/*/hashes/*/alg", "/components/*/data/*/type",
        "/metadata/component/modelCard/modelParameters/datasets/*/ref",
        "/metadata/component/modelCard/quantitativeAnalysis/performanceMetrics/*/type",
    }  # fmt: skip
    results = "/model-index/*/results/*"
    assert bare[CARD] == {"/tags/*", f"{results}/task/type", f"{results}/dataset/type", f"{results}/metrics/*/type"}


def test_the_compute_of_the_modification_follows_from_recorded_numbers(bundle: Path) -> None:
    facts = {
        fact["name"]: fact
        for section in json_of(bundle / technical_file.JSON)["sections"]
        if section["title"].startswith("Compute")
        for fact in section["facts"]
    }
    assert facts["train: FLOPs"]["value"] == (4 * 1000 + 2 * 100) * 5000
    assert facts["FLOPs of all trainings"]["value"] == 2 * (4 * 1000 + 2 * 100) * 5000
    assert "Kaplan" in facts["train: FLOPs"]["rule"]
    assert facts["ratio to the base model's training"]["value"] is None


def test_text_of_others_is_only_text_in_the_documents(bundle: Path) -> None:
    for name in (CARD, technical_file.TEXT):
        text = (bundle / name).read_text()
        assert "\x1b" not in text
        assert "3 rows are cut \\| \\\\x1b\\[31m\\`odd\\`" in text, FACTS["dataset_notes"]
        assert all(line.count(" | ") == 2 for line in text.splitlines() if line.startswith("| ") and "---" not in line)


def test_no_document_claims_to_comply(bundle: Path) -> None:
    assert [path.name for path in bundle.iterdir() if path.is_file() and b"complian" in path.read_bytes().lower()] == []


def of_an_old_release() -> Collected:
    """What a reader collects of the log that release 0.1.0 wrote."""
    old = [
        RawRecord(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
        for r in logs.read("0.1.0", logs.LIVE_LOG)
    ]
    made = next(json.loads(r.value or b"") for r in old if r.topic == MODELS.name and b'"lineage"' in (r.value or b""))
    job = made["lineage"]["job_id"].encode()
    about = [r if r.key in (job, made["model"].encode()) else r._replace(key=b"other") for r in old]
    return collected(sorted(about, key=lambda r: r[:3]), model=made["model"], version=made["version"])


def test_a_log_of_an_old_release_makes_a_bundle_that_says_what_it_does_not_record(tmp_path: Path) -> None:
    write_bundle(of_an_old_release(), SIGNER, tmp_path / "bundle", None)
    verdict = verify_bundle(tmp_path / "bundle", PUBLIC)
    assert verdict.holds, verdict.differences
    assert {check.name for check in verdict.checks if check.verdict == "open"} == {"artifact"}
    assert "| train: tokens read, D | not recorded |" in (tmp_path / "bundle" / technical_file.TEXT).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((tmp_path / "bundle" / BOM).read_text()) is None


def test_equal_records_give_equal_bytes_for_as_long_as_the_format_is_the_same() -> None:
    old = of_an_old_release()
    derived = derive(old.view, old.records)
    documents = {**{name: derived.files[name] for name in DIGESTS if name != "statement"}, "statement": derived.statement}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in documents.items()} == DIGESTS
    assert FORMAT == 1


def test_a_version_that_was_made_elsewhere_says_so_and_names_no_data(tmp_path: Path) -> None:
    made = collected(raw_records([imported(event) for event in events_of(artifact("job", "align", "adapter"))]))
    documents = derive(made.view, made.records).files
    card, technical = documents[CARD].decode(), documents[technical_file.TEXT].decode()
    assert "Made elsewhere and imported by NeuroWeaver." in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    for words in ("imported: its files were made elsewhere", "owner/model", "no record here proves it"):
        assert words in technical
    assert "| reference | not recorded |" in technical, "no data set was read"


def imported(event: Event) -> Event:
    """Return an event of a job as if it had imported the version and read no data."""
    match event.data:
        case ModelRegistered() as made:
            origin = Imported(source="owner/model", licence="apache-2.0")
            return changed(event, made.model_copy(update={"lineage": made.lineage.model_copy(update={"imported": origin})}))
        case JobAccepted() as accepted:
            data = accepted.request.dataset.model_copy(update={"reference": "none"})
            return changed(
                event, accepted.model_copy(update={"request": accepted.request.model_copy(update={"dataset": data})})
            )
    return event


def test_a_log_without_the_version_makes_no_bundle() -> None:
    made = collected(raw_records(events_of(artifact("some"))), version="9.9.9")
    with pytest.raises(BundleRefused, match=r"no record registers router@9\.9\.9"):
        derive(made.view, made.records)


def test_erased_rows_that_a_version_learnt_from_are_known_limits_with_who_and_why(tmp_path: Path) -> None:
    events = events_of(artifact())
    made = next(event for event in events if isinstance(event.data, ModelRegistered))
    assert isinstance(made.data, ModelRegistered)
    lineage, dataset = made.data.lineage, f"support@{'5' * 64}"
    told = ErasedRowsLearnt(
        model=made.data.model, version=made.data.version, job_id=lineage.job_id, step=lineage.step, erasure="e", dataset=dataset, rows=2,
        by="ana", reason="She asked.",
    )  # fmt: skip
    known = collected(raw_records([*events, changed(made, told)]))
    sections = json.loads(derive(known.view, known.records).files[technical_file.JSON])["sections"]
    (limits,) = [section["facts"] for section in sections if section["title"] == "Known limits"]
    said = {fact["name"].rpartition(": ")[2]: fact["value"] for fact in limits if "rows that are erased" in fact["name"]}
    assert said == {"dataset": dataset, "rows": 2, "through": None, "by": "ana", "reason": "She asked."}
