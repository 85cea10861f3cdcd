"""Says where answers of callers lie that are judged: in a store of their own beside the artifacts, since retention removes them."""

from services.chassis.storage.artifacts.store import ArtifactStore

FOLDER = "answer-pairs"


def pairs_store(artifacts_uri: str) -> ArtifactStore:
    """Return the store of the pairs of answers that belongs to a store of artifacts."""
    return ArtifactStore(f"{artifacts_uri.rstrip('/')}/{FOLDER}")
