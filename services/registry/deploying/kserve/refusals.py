"""Says what a refusal of the Kubernetes API means for a slot, in a word and with a remedy."""

import json

from services.chassis.process.redaction import redacted
from services.registry.deploying.faults import Away, Refused
from services.registry.deploying.remote.http import AWAY, Reply
from services.registry.deploying.settings import KserveSettings

_BUSY = (408, 429, 500, 502, 503, 504)


def refused(reply: Reply, where: str, settings: KserveSettings) -> Refused | Away:
    """Return the fault for an answer that is no success."""
    said, namespace = _words(reply), settings.namespace
    if reply.status == 401:
        token = settings.token_variable or "the service account"
        return Refused("KeyRefused", f"{where} refuses the registry's token; see to that of {token}")
    if reply.status == 403:
        rights = (
            f"grant get, list, patch, create and delete on inferenceservices.serving.kserve.io in namespace {namespace}"
        )
        return Refused("Forbidden", f"{where} forbids it: {said}; {rights}")
    if reply.status == 404 and "namespaces" in said:
        return Refused(
            "NamespaceMissing", f"{where} has no namespace {namespace}; create it, or name another in the settings"
        )
    if reply.status == 404:
        return Refused("KserveMissing", f"{where} knows no InferenceService; install KServe in the cluster")
    if reply.status == 409 and "field" in said:
        remedy = "take that change back, or delete the object so that it is made again"
        return Refused("FieldConflict", f"somebody else changed fields that the registry sets: {said}; {remedy}")
    if reply.status in _BUSY or reply.status == 409:
        return Away(AWAY, f"{where} answers with status {reply.status}: {said}; it is tried again")
    remedy = "correct the settings of the driver; an adapter needs KServe 0.16 or newer"
    return Refused("ManifestRefused", f"{where} refuses the InferenceService (status {reply.status}): {said}; {remedy}")


def _words(reply: Reply) -> str:
    """Return the message of a `Status`, or the first words of what came instead."""
    try:
        return redacted(str(json.loads(reply.body)["message"])[:400])
    except (ValueError, KeyError, TypeError, RecursionError):
        return reply.words
