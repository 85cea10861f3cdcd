"""Finds the registered data set that a job names, and says where its rows are stored."""

from schemas.artifacts import ArtifactRef
from schemas.datasets import PREFIX_AT_LEAST
from schemas.reasons import first_of
from schemas.results import DATASET, PREFERENCES
from services.registry.datasets.queries import DatasetQueries, StoredDataset
from services.registry.unresolved import Unresolved

_NAMED = 5


async def named_dataset(queries: DatasetQueries, reference: str) -> StoredDataset:
    """Return the row of the data set that `reference`, `name@digest`, names. Raises Unresolved if there is none or more than one."""
    name, _, digest = reference.partition("@")
    found = await queries.called(name, digest.lower())
    if len(found) == 1:
        return found[0]
    known = [sha256[:PREFIX_AT_LEAST] for sha256 in await queries.known(name, _NAMED + 1)]
    if found:
        raise Unresolved(reference, f"several versions of the data set {name} begin so", "write more digits of its digest")
    if known:
        message = f"the data set {name} has no version whose digest begins so"
        raise Unresolved(reference, message, f"name one of {first_of(known, _NAMED)}")
    remedy = "neuroweaver datasets list shows the names; write ./ before a path, and owner/name@revision for the hub"
    raise Unresolved(reference, f"no data set is registered as {name}", remedy)


def artifacts_of(stored: StoredDataset) -> dict[str, ArtifactRef]:
    """Return the artifacts that a data set consists of now, by the name of the input that they become."""
    now = stored.remains or stored.made
    pairs = {} if now.preferences is None else {PREFERENCES: now.preferences}
    return {DATASET: now.artifact, **pairs}
