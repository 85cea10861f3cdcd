"""The signed statement: an in-toto Statement v1 with SLSA provenance v1, in which the roots of the log and the other documents lie.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.0/provenance
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue

from schemas.base import Strict
from services.audit.bundle.cited import NOT_RECORDED, NOTHING, Cited, Tree
from services.audit.bundle.log_view import LogView
from services.audit.bundle.sources import VersionSources

STATEMENT = "statement.dsse.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:neuroweaver:job:1"
ROOT_DIGEST = "rfc6962Sha256"
"""Name of the digest that is the root of a Merkle tree."""


class ResourceDescriptor(Strict):
    """A thing that went in or came out, with its digest."""

    name: str
    digest: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, JsonValue] = Field(default_factory=dict)


class BuildDefinition(Strict):
    """What was asked for."""

    buildType: Literal["urn:neuroweaver:job:1"]  # noqa: N815  # names of SLSA
    externalParameters: dict[str, JsonValue]  # noqa: N815
    internalParameters: dict[str, JsonValue]  # noqa: N815
    resolvedDependencies: tuple[ResourceDescriptor, ...]  # noqa: N815


class Builder(Strict):
    """Who did it."""

    id: str
    version: dict[str, str] = Field(default_factory=dict)


class BuildMetadata(Strict):
    """Which run it was, and when."""

    invocationId: str  # noqa: N815  # names of SLSA
    startedOn: str | None = None  # noqa: N815
    finishedOn: str | None = None  # noqa: N815


class RunDetails(Strict):
    """How it was done."""

    builder: Builder
    metadata: BuildMetadata
    byproducts: tuple[ResourceDescriptor, ...]


class Provenance(Strict):
    """SLSA provenance v1."""

    buildDefinition: BuildDefinition  # noqa: N815  # names of SLSA
    runDetails: RunDetails  # noqa: N815


class Statement(Strict):
    """An in-toto Statement v1."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[ResourceDescriptor, ...] = Field(min_length=1)
    predicateType: Literal["https://slsa.dev/provenance/v1"]  # noqa: N815
    predicate: Provenance


def statement_of(known: VersionSources, view: LogView, digests: Mapping[str, str]) -> Tree:
    """Return the statement; `digests` are those of the other files of the bundle."""
    made, accepted = known.registered, known.accepted
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": _name(known), "digest": {"sha256": made.at("artifact", "sha256")}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"request": known.of_request()},
                "internalParameters": {
                    "plan": accepted.at("plan") if accepted else NOT_RECORDED,
                    "policy": accepted.at("policy") if accepted else NOT_RECORDED,
                    "configuration": made.at("lineage", "configuration"),
                },
                "resolvedDependencies": _dependencies(known),
            },
            "runDetails": {
                "builder": {"id": _builder(known), "version": {"neuroweaver": made.at(*_LIBRARY)}},
                "metadata": {
                    "invocationId": made.at("lineage", "job_id"),
                    "startedOn": accepted.header("ce_time") if accepted else NOT_RECORDED,
                    "finishedOn": made.header("ce_time"),
                },
                "byproducts": [*_roots(view), *_files(digests)],
            },
        },
    }


_LIBRARY = ("lineage", "configuration", "libraries", "neuroweaver")


def _name(known: VersionSources) -> Cited:
    model, version = known.registered.at("model"), known.registered.at("version")
    return Cited(f"{model.value}@{version.value}", (*model.origins, *version.origins), "name and version")


def _builder(known: VersionSources) -> Cited:
    writer = known.registered.header("ce_source")
    return writer.by("the writer as a URN", f"urn:{str(writer.value).replace('/', ':')}")


def _dependencies(known: VersionSources) -> list[Tree]:
    lineage = known.registered
    found: list[Tree] = [
        _input(lineage.at("lineage", "base_model"), lineage.at("lineage", "base_model_sha256"), "base model"),
        _input(known.data, lineage.at("lineage", "dataset_sha256"), "data set"),
    ]
    teacher = known.fact("teacher_sha256")
    if teacher.value is not None:
        found.append(_input(known.of_request("distill", "teacher"), teacher, "teacher"))
    started = lineage.at("lineage", "started_from")
    if started.value is not None:
        found.append(_input(started, NOT_RECORDED, "version from which the training started"))
    return found


def _input(name: Cited, sha256: Cited, role: str) -> Tree:
    return {"name": NOTHING if name.value is None else name, "digest": {"sha256": sha256}, "annotations": {"role": role}}


def _roots(view: LogView) -> list[Tree]:
    return [
        {
            "name": seen.name,
            "digest": {ROOT_DIGEST: seen.root},
            "annotations": {
                "records": seen.records, "begin": seen.begin, "end": seen.end, "cluster": view.cluster_id,
                "readAt": view.read_at.isoformat(), "readBy": view.software,
            },
        }
        for seen in view.partitions
    ]  # fmt: skip


def _files(digests: Mapping[str, str]) -> list[Tree]:
    return [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(digests.items())]


def checked(plain: Any) -> Any:
    """Return a statement that the types of SLSA and in-toto accept. Raises ValidationError."""
    Statement.model_validate(plain)
    return plain
