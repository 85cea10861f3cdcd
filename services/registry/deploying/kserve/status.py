"""Reads what KServe says of an InferenceService."""

from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError

from services.registry.deploying.faults import Away
from services.registry.deploying.kserve.manifest import OWNER
from services.registry.deploying.remote.http import AWAY

_REASONS = {
    "ModelLoadFailed": "LoadFailed",
    "RuntimeUnhealthy": "RuntimeUnhealthy",
    "RuntimeDisabled": "NoRuntime",
    "NoSupportingRuntime": "NoRuntime",
    "RuntimeNotRecognized": "NoRuntime",
    "InvalidPredictorSpec": "ManifestRefused",
}
"""Our words for KServe's `FailureReason`."""
_REMEDIES = {
    "LoadFailed": "look into the log of its pod, and see to its files, its memory and its GPU",
    "RuntimeUnhealthy": "look at its pods: kubectl describe pod shows why they do not run",
    "NoRuntime": "install KServe's runtime kserve-huggingfaceserver, or name another as `runtime` in the settings",
    "ManifestRefused": "correct `args`, `resources` and `runtime` in the settings",
}


class _Metadata(BaseModel):
    name: str = ""
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    deletionTimestamp: str | None = None  # noqa: N815 (Kubernetes' name)


class _Condition(BaseModel):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class _Address(BaseModel):
    url: str | None = None


class _Failure(BaseModel):
    reason: str = ""
    message: str = ""


class _ModelStatus(BaseModel):
    lastFailureInfo: _Failure | None = None  # noqa: N815
    transitionStatus: str = ""  # noqa: N815


class _Status(BaseModel):
    observedGeneration: int | None = None  # noqa: N815
    conditions: list[_Condition] = Field(default_factory=list)
    address: _Address | None = None
    url: str | None = None
    modelStatus: _ModelStatus = _ModelStatus()  # noqa: N815


class Service(BaseModel):
    """An InferenceService as the cluster has it."""

    metadata: _Metadata = _Metadata()
    status: _Status = _Status()

    def is_of(self, owner: str) -> bool:
        """Whether this registry made it."""
        return self.metadata.labels.get(OWNER) == owner


class Services(BaseModel):
    """A list of InferenceServices."""

    items: list[Service]


class Judged(NamedTuple):
    """How a service is."""

    address: str | None
    """Where it answers; None: it does not."""
    reason: str = ""
    """Why it has failed; empty: it may become ready by itself."""
    message: str = ""


def judged(service: Service) -> Judged:
    """Return how a service is, by the conditions of its present generation."""
    status, named = service.status, f"InferenceService {service.metadata.name}"
    if service.metadata.deletionTimestamp is not None:
        return Judged(None, "", f"{named} is being deleted")
    if status.observedGeneration is not None and status.observedGeneration < service.metadata.generation:
        return Judged(None, "", f"KServe has not looked at {named} yet")
    ready = next((one for one in status.conditions if one.type == "Ready"), None)
    if ready is not None and ready.status == "True":
        return _answering(service)
    failure = status.modelStatus.lastFailureInfo
    if failure is not None and failure.reason in _REASONS:
        reason = _REASONS[failure.reason]
        return Judged(None, reason, f"{named}: {failure.reason}: {failure.message[:300]}; {_REMEDIES[reason]}")
    wrong = [f"{one.type}: {one.reason} {one.message}".strip() for one in status.conditions if one.status == "False"]
    return Judged(None, "", f"{named} is not ready; {'; '.join(wrong)[:600] or 'KServe says nothing of it'}")


def _answering(service: Service) -> Judged:
    url = (service.status.address and service.status.address.url) or service.status.url
    if not url:
        return Judged(None, "", f"InferenceService {service.metadata.name} is ready, but has no address")
    return Judged(f"{url.rstrip('/')}/openai")


def service_of(body: bytes, where: str) -> Service:
    """Return the service in an answer of the API. Raises Away for garbage."""
    try:
        return Service.model_validate_json(body)
    except ValidationError:
        raise Away(AWAY, f"{where} answers with what is no InferenceService; see what listens there") from None


def services_of(body: bytes, where: str) -> list[Service]:
    """Return those in a list."""
    try:
        return Services.model_validate_json(body).items
    except ValidationError:
        raise Away(AWAY, f"{where} answers with what is no list of InferenceServices; see what listens there") from None
