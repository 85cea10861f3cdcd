"""Bundles of evidence from records that no broker has seen: a job's events, and a small artifact."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.artifacts import ArtifactRef
from schemas.envelope import Event, encode
from schemas.jobs import StepCompleted, StepRequested, StepResult
from schemas.models import ModelRegistered
from schemas.topics import TOPIC_OF, aggregate_key
from services.audit.bundle.collecting import Collected
from services.audit.bundle.log_view import FORMAT, LogView, SeenPartition
from services.audit.bundle.record_lines import ProvenRecord
from services.audit.bundle.writing import write_bundle
from services.audit.leaf import RawRecord, leaf_bytes
from services.audit.merkle import audit_paths, leaf_hash
from services.chassis.storage.artifacts.store import ArtifactStore
from tests.audit import MadeJob, changed

READ_AT = datetime(2030, 1, 2, tzinfo=UTC)
MODEL, VERSION = "router", "1.0.0"
LIBRARIES = {"neuroweaver": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"}
TRAINED = {"base_parameters": 1000.0, "trainable_parameters": 100.0, "tokens_read": 5000.0, "steps": 4.0}
METRICS = {"exact_match": 0.75, "exact_match_low": 0.5, "exact_match_high": 0.9, "rows": 40.0, "perplexity": None}
FACTS = {
    "base_model_sha256": "b" * 64, "dataset_sha256": "d" * 64, "dataset_notes": "3 rows are cut | \x1b[31m`odd`",
}  # fmt: skip
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


def artifact_in(store: Path) -> ArtifactRef:
    """Put a small adapter into a store."""
    folder = store.parent / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 16)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return ArtifactStore(str(store)).put(folder)


def events_of(artifact: ArtifactRef, job_id: str = "job-1") -> list[Event]:
    """Return the events of a whole job that made the artifact, with numbers such as real steps record."""
    made = MadeJob(job_id, MODEL)
    (old,) = [event.data.artifact for event in made.events if isinstance(event.data, ModelRegistered)]
    return [changed(event, _filled(_moved(event.data, old, artifact))) for event in made.events]


def _moved(data: Any, old: ArtifactRef, new: ArtifactRef) -> Any:
    """Put one artifact into the place of another wherever an event names it."""
    text = data.model_dump_json().replace(old.model_dump_json(), new.model_dump_json())
    return type(data).model_validate_json(text.replace(old.sha256, new.sha256))


def _filled(data: Any) -> Any:
    match data:
        case ModelRegistered():
            results = {step: _result(step, result) for step, result in data.lineage.results.items()}
            configuration: Any = {"method": "dpo", "seed": 0, "libraries": LIBRARIES}
            lineage = data.lineage.model_copy(update={"results": results, "configuration": configuration})
            return data.model_copy(update={"lineage": lineage, "metrics": METRICS})
        case StepCompleted():
            return data.model_copy(update={"result": _result(data.step, data.result)})
        case StepRequested():
            return data.model_copy(update={"results": {}})
    return data


def _result(step: str, result: StepResult) -> StepResult:
    if step == "prepare":
        return result.model_copy(update={"facts": FACTS, "metrics": {"rows_train": 36.0, "rows_test_seen_in_train": 1.0}})
    return result.model_copy(update={"metrics": TRAINED}) if step in ("train", "align") else result


def raw_records(events: Sequence[Event]) -> list[RawRecord]:
    """Return events as records of topics with one partition, behind a record of another key."""
    found: list[RawRecord] = []
    offsets: dict[str, int] = {}
    for event in events:
        value, headers = encode(event)
        topic = TOPIC_OF[event.type].name
        if topic not in offsets:
            found.append(RawRecord(topic, 0, 0, 0, b"other", b"{}", ()))
        offset = offsets[topic] = offsets.get(topic, 0) + 2  # offsets may have gaps
        key = aggregate_key(event.data).encode()
        found.append(RawRecord(topic, 0, offset, 1_893_456_000_000 + offset, key, value, tuple(headers)))
    return sorted(found, key=lambda record: record[:3])


def collected(records: Sequence[RawRecord], *, model: str = MODEL, version: str = VERSION) -> Collected:
    """Return what a reader of a log of these records collects; those of another key are not wanted."""
    proven, seen = list[ProvenRecord](), list[SeenPartition]()
    for topic, partition in sorted({record[:2] for record in records}):
        here = [record for record in records if record[:2] == (topic, partition)]
        wanted = [number for number, record in enumerate(here) if record.key != b"other"]
        if not wanted:
            continue
        root, paths = audit_paths([leaf_hash(leaf_bytes(record)) for record in here], wanted, len(here))
        proven += [ProvenRecord(here[n], n, tuple(sibling.sha256 for sibling in paths[n])) for n in wanted]
        seen.append(
            SeenPartition(
                topic=topic, partition=partition, begin=0, end=here[-1].offset + 1, records=len(here), root=root.hex()
            )
        )
    view = LogView(
        format=FORMAT, model=model, version=version, cluster_id="cluster-of-tests", read_at=READ_AT,
        software="neuroweaver 0.1.0", partitions=tuple(seen),
    )  # fmt: skip
    return Collected(view, tuple(proven))


def bundle_in(folder: Path) -> Path:
    """Write a whole bundle with artifact and key into a new folder, and return it."""
    store = folder / "store"
    artifact = artifact_in(store)
    made = collected(raw_records(events_of(artifact)))
    write_bundle(made, SIGNER, folder / "bundle", lambda ref: ArtifactStore(str(store)).fetch(ref, folder / "cache"))
    return folder / "bundle"


def json_of(path: Path) -> Any:
    """Return the JSON of a file."""
    return json.loads(path.read_bytes())
