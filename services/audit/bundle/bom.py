"""The bill of materials: a CycloneDX 1.6 ML-BOM with model, model card, data set, base model and libraries. Pure.

https://cyclonedx.org/docs/1.6/json/
"""

import re
import uuid
from typing import Any
from urllib.parse import quote

from schemas.artifacts import SHA256_PATTERN
from services.audit.bundle.cited import NOT_RECORDED, NOTHING, Cited, Tree
from services.audit.bundle.facts import LIMITS, Measured, measured
from services.audit.bundle.sources import VersionSources

BOM = "bom.cdx.json"
_APPROACHES = {
    "sft": "supervised", "distill": "supervised", "dpo": "supervised", "kto": "supervised", "reward": "supervised",
    "grpo": "reinforcement-learning", "rloo": "reinforcement-learning",
}  # fmt: skip
_MODEL, _BASE, _DATA = "model", "base-model", "data-set"


def bom_of(known: VersionSources) -> Tree:
    """Return the bill of materials."""
    libraries = _libraries(known)
    refs = [_BASE, _DATA, *(name for name, _ in libraries)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": _serial(known),
        "version": 1,
        "metadata": {"timestamp": known.registered.header("ce_time"), "component": _model(known)},
        "components": [_base(known), _data(known), *(library for _, library in libraries)],
        "dependencies": [{"ref": _MODEL, "dependsOn": refs}, *({"ref": ref} for ref in refs)],
    }


def _serial(known: VersionSources) -> Cited:
    artifact = known.registered.at("artifact", "sha256")
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"{known.registered.place}#{artifact.value}")
    return artifact.by("UUID 5 of record and digest", f"urn:uuid:{number}")


def _model(known: VersionSources) -> Tree:
    made = known.registered
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": made.at("model"),
        "version": made.at("version"),
        **_hashes(made.at("artifact", "sha256")),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": _approach(known)},
                "task": _task(known),
                "datasets": [{"ref": _DATA}],
            },
            "quantitativeAnalysis": {"performanceMetrics": [_metric(one) for one in measured(known)]},
            "considerations": {"technicalLimitations": _limits(known)},
        },
    }


def _approach(known: VersionSources) -> Cited:
    method = known.registered.at("lineage", "configuration", "method")
    return method.by("learning type of the method", _APPROACHES.get(str(method.value))) if method.value else NOT_RECORDED


def _task(known: VersionSources) -> Cited:
    purpose = known.registered.at("purpose")
    return purpose.by("task of the purpose", "text-classification" if purpose.value == "scores" else "text-generation")


def _metric(one: Measured) -> Tree:
    found: dict[str, Tree] = {"type": one.name, "value": _text(one.value)}
    if one.low.value is None:
        return found
    return {**found, "confidenceInterval": {"lowerBound": _text(one.low), "upperBound": _text(one.high)}}


def _text(number: Cited) -> Cited:
    return Cited(repr(number.value), number.origins)


def _limits(known: VersionSources) -> list[Tree]:
    told = (known.fact(name) for name in LIMITS)
    return [fact for fact in told if isinstance(fact.value, str)]


def _base(known: VersionSources) -> Tree:
    return {
        "type": "machine-learning-model",
        "bom-ref": _BASE,
        "name": known.registered.at("lineage", "base_model"),
        **_hashes(known.registered.at("lineage", "base_model_sha256")),
    }


def _data(known: VersionSources) -> Tree:
    reference = known.data
    name: Tree = NOTHING if reference.value is None else reference
    sha256 = known.registered.at("lineage", "dataset_sha256")
    return {"type": "data", "bom-ref": _DATA, "name": name, **_hashes(sha256), "data": [{"type": "dataset", "name": name}]}


def _hashes(sha256: Cited) -> dict[str, Tree]:
    known = isinstance(sha256.value, str) and re.fullmatch(SHA256_PATTERN, sha256.value)
    return {} if not known else {"hashes": [{"alg": "SHA-256", "content": sha256}]}


def _libraries(known: VersionSources) -> list[tuple[str, Tree]]:
    made = known.registered
    found: list[tuple[str, Tree]] = []
    for name in made.under("lineage", "configuration", "libraries"):
        version: Any = made.at("lineage", "configuration", "libraries", name)
        purl = version.by(
            "package URL of name and version", f"pkg:pypi/{quote(name, safe='')}@{quote(str(version.value), safe='')}"
        )
        ref = f"library-{name}"
        found.append((ref, {"type": "library", "bom-ref": ref, "name": name, "version": version, "purl": purl}))
    return found
