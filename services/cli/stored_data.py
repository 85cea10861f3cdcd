"""Brings the rows of a registered data set to this machine, with proof of every byte."""

from pathlib import Path
from typing import NamedTuple

from schemas.artifacts import ArtifactRef
from schemas.datasets import dataset_reference
from schemas.recipes.dataset import DatasetSettings
from services.chassis.storage.artifacts.errors import ArtifactCorrupt
from services.chassis.storage.artifacts.store import ArtifactStore
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.registered_data import dataset_path
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.orchestrator.domain.registered_data import faults_of_data
from services.registry.datasets.views import DatasetView


class StoredData(NamedTuple):
    """What remains of a registered data set, in folders."""

    rows: Path
    preferences: Path | None
    """Its pairs or labels."""
    tested: bool
    """Whether it has a test split."""


def stored_data(settings: DatasetSettings, cache: Path) -> StoredData | None:
    """Return the rows of the registered data set that the settings name; None if they name other data.

    Ends the command for a data set that is not there or is not what was registered, and for settings that hold when rows are stored.
    """
    reference = dataset_reference(settings)
    if reference is None:
        return None
    if reasons := list(faults_of_data(settings)):
        stop_with(Exit.USAGE, "\n".join(map(str, reasons)))
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = edge.get(DatasetView, dataset_path(f"{reference.name}@{reference.digest}"))
    try:
        preferences = None if found.preferences is None else _folder(found.preferences, cache)
        return StoredData(_folder(found.artifact, cache), preferences, bool(found.rows.get("test")))
    except ArtifactCorrupt as error:
        stop_with(Exit.FAILED, f"{found.id} is not what was registered: {error}")


def _folder(artifact: ArtifactRef, cache: Path) -> Path:
    return ArtifactStore.of(artifact).fetch_remaining(artifact, cache)
