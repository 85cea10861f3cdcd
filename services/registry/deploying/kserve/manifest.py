"""Renders the InferenceService that serves a target: KServe's huggingface runtime on vLLM, with an adapter beside its base model.

An adapter needs `storageUris`, which KServe has since 0.16: base model and adapter are brought into one pod. The object's name has a digest of
what it serves, so an object is made and deleted and never changed to serve something else.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from services.registry.deploying.driver import Target
from services.registry.deploying.faults import Refused
from services.registry.deploying.settings import KserveSettings

OWNER, MANAGED_BY = "neuroweaver/owner", "app.kubernetes.io/managed-by"
MANAGER = "neuroweaver"
API_VERSION, KIND = "serving.kserve.io/v1beta1", "InferenceService"
_MODELS = "/mnt/models"
_SCHEMES = ("s3://", "gs://", "hf://", "pvc://", "oci://", "https://")
"""URIs that KServe's storage initializer reads itself."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def name_of(target: Target, owner: str) -> str:
    """Return the name of the object that serves a target, at most 40 signs of a DNS label; equal versions share one."""
    slug = re.sub("[^a-z0-9]+", "-", f"{target.model}-{target.version}".lower()).strip("-")[:26].rstrip("-")
    mark = hashlib.sha256(f"{owner}/{target.served}/{target.artifact.sha256}".encode()).hexdigest()[:10]
    return f"nw-{slug}-{mark}"


def manifest(target: Target, settings: KserveSettings, owner: str) -> dict[str, Any]:
    """Return the object. Raises Refused where the settings do not say how the cluster reads its files."""
    name = name_of(target, owner)
    about = {"model": target.model, "version": target.version, "sha256": target.artifact.sha256}
    metadata = {
        "name": name,
        "namespace": settings.namespace,
        "labels": {MANAGED_BY: MANAGER, OWNER: owner},
        "annotations": {f"neuroweaver/{key}": value for key, value in about.items()},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata,
        "spec": {"predictor": _predictor(name, target, settings)},
    }


def _predictor(name: str, target: Target, settings: KserveSettings) -> dict[str, Any]:
    artifact = _artifact_uri(target, settings)
    model: dict[str, Any] = {"modelFormat": {"name": "huggingface"}, "args": ["--backend=vllm"]}
    predictor: dict[str, Any] = {"minReplicas": 1, "model": model}
    if target.kind == "model":
        model["storageUri"] = artifact
        model["args"] += [f"--model_name={name}"]
    else:
        base, adapter = f"{_MODELS}/base", f"{_MODELS}/adapter"
        predictor["storageUris"] = [
            {"uri": _base_uri(target, settings), "mountPath": base},
            {"uri": artifact, "mountPath": adapter},
        ]
        model["args"] += [
            f"--model_name={name}-base",
            f"--model_dir={base}",
            "--enable-lora",
            f"--lora-modules={name}={adapter}",
        ]
    model["args"] += settings.args
    if settings.resources:
        model["resources"] = {"limits": dict(settings.resources), "requests": dict(settings.resources)}
    if settings.runtime is not None:
        model["runtime"] = settings.runtime
    if settings.service_account is not None:
        predictor["serviceAccountName"] = settings.service_account
    return predictor


def _artifact_uri(target: Target, settings: KserveSettings) -> str:
    uri = target.artifact.uri
    if (found := _mapped(uri, settings.storage)) is not None:
        return found
    if uri.startswith(_SCHEMES):
        return uri
    what = f"the settings do not say how the cluster reads {uri}, the artifact of {target.served}"
    raise Refused(
        "StorageUnknown", f"{what}; map its store in `storage` of NEUROWEAVER_SERVING_KSERVE, such as to pvc://artifacts"
    )


def _base_uri(target: Target, settings: KserveSettings) -> str:
    reference = target.base_model
    if (found := settings.base_models.get(reference) or _mapped(reference, settings.storage)) is not None:
        return found
    if reference.startswith(_SCHEMES):
        return reference
    if _HUB_ID.fullmatch(reference):
        return f"hf://{reference}"
    what = f"the settings do not say how the cluster reads the base model {reference} of {target.served}"
    raise Refused("StorageUnknown", f"{what}; name its URI in `base_models` of NEUROWEAVER_SERVING_KSERVE")


def _mapped(uri: str, storage: Mapping[str, str]) -> str | None:
    """Return the URI under which the cluster reads one of ours: by the longest store that the settings map."""
    plain = uri.removeprefix("file://")
    for store in sorted(storage, key=len, reverse=True):
        root = store.removeprefix("file://").rstrip("/")
        if plain == root or plain.startswith(f"{root}/"):
            return storage[store].rstrip("/") + plain[len(root) :]
    return None
