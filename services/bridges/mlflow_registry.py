"""Writes models, versions, aliases and tags into an MLflow model registry; each call may be repeated and then changes nothing.

How far a model is mirrored is a tag of the model in MLflow itself. So the position lies beside the effects, whichever of both sides is restarted
or brought back from a backup. The client blocks: call from a thread.
"""

import os
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from schemas.models import ModelRegistered
from schemas.reasons import shortened

OWN = "neuroweaver."
_SEQUENCE, _LOG, _VERSION, _REFUSED = f"{OWN}sequence", f"{OWN}log", f"{OWN}version", f"{OWN}refused"
EXPERIMENT = "neuroweaver-versions"
"""The experiment whose runs have the metrics of the versions."""
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""The server answers within half a minute or counts as away, and the client writes nothing of its own; the user's environment may say otherwise."""
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED")
_LONGEST = 5000
_BATCH = 1000
_NO_METRIC = re.compile(r"[^\w\-./: ]")


class Refused(Exception):
    """MLflow does not take something; to send it again is of no use."""


class Foreign(Exception):
    """MLflow has a model of that name that is not mirrored from this log."""


class Away(Exception):
    """MLflow does not answer, or not as expected; later it may."""


class MlflowRegistry:
    """The registry at an address, for the log of one cluster."""

    def __init__(self, uri: str, cluster_id: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(uri, registry_uri=uri)
        self._log = cluster_id
        self._experiment: str | None = None

    def sequence(self, model: str) -> int:
        """Return the number of the last event of the model that is mirrored; 0 for none. Raises Foreign."""
        found = self._found(model)
        if found is None:
            return 0
        if found.tags.get(_LOG) != self._log:
            raise Foreign(
                f"MLflow has a model {model} that is not mirrored from this log; rename it there, or mirror into another registry"
            )
        return int(found.tags.get(_SEQUENCE, "0"))

    def begin(self, model: str) -> None:
        """Create the model if it is not there."""
        if self._found(model) is None:
            self._client.create_registered_model(model, tags={_LOG: self._log, _SEQUENCE: "0"})

    def done(self, model: str, sequence: int) -> None:
        """Note that everything up to an event is mirrored."""
        self._client.set_registered_model_tag(model, _SEQUENCE, str(sequence))

    def refused(self, model: str, why: str) -> None:
        """Leave a note at the model that MLflow did not take something."""
        self._client.set_registered_model_tag(model, _REFUSED, shortened(why, _LONGEST))

    def register(self, made: ModelRegistered, at: datetime) -> None:
        """Create the version, with a run that has its metrics."""
        if self._number(made.model, made.version) is not None:
            return
        run = self._measured(made, at)
        uri = made.artifact.uri
        source = uri if "://" in uri and not uri.startswith("file:") else f"neuroweaver://{made.model}/{made.version}"
        tags = {f"{OWN}{name}": shortened(value, _LONGEST) for name, value in _told(made).items() if value}
        self._client.create_model_version(made.model, source=source, run_id=run, tags=tags)

    def describe(self, model: str, version: str, text: str, tags: Mapping[str, str]) -> None:
        """Set description and tags of a version; tags that it has no longer are removed."""
        number = self._known(model, version)
        self._client.update_model_version(model, number, description=text)
        before = self._client.get_model_version(model, number).tags
        for name in before:
            if not name.startswith(OWN) and name not in tags:
                self._client.delete_model_version_tag(model, number, name)
        for name, value in tags.items():
            if before.get(name) != value:
                self._client.set_model_version_tag(model, number, name, value)

    def mark(self, model: str, version: str, state: str) -> None:
        """Set the state of a version, as a tag."""
        self._client.set_model_version_tag(model, self._known(model, version), f"{OWN}state", state)

    def point(self, model: str, alias: str, version: str) -> None:
        """Let an alias name a version."""
        self._client.set_registered_model_alias(model, alias, self._known(model, version))

    def unpoint(self, model: str, alias: str) -> None:
        """Remove an alias, if it is there."""
        self._client.delete_registered_model_alias(model, alias)

    def _found(self, model: str) -> Any:
        found = self._client.search_registered_models(f"name = '{model}'", max_results=1)
        return found[0] if found else None

    def _number(self, model: str, version: str) -> str | None:
        found = self._client.search_model_versions(f"name = '{model}' and tags.`{_VERSION}` = '{version}'", max_results=1)
        return str(found[0].version) if found else None

    def _known(self, model: str, version: str) -> str:
        number = self._number(model, version)
        if number is None:
            raise Refused(f"MLflow has no version {version} of {model} any more")
        return number

    def _measured(self, made: ModelRegistered, at: datetime) -> str:
        """Return the run of a version, which has its metrics."""
        from mlflow.entities import Metric, Param

        name, moment = f"{made.model}@{made.version}", int(at.timestamp() * 1000)
        experiment = self._experiment_id()
        found = self._client.search_runs([experiment], f"tags.`{OWN}id` = '{name}'", max_results=1)
        tags = {f"{OWN}id": name, "mlflow.runName": name}
        run = found[0] if found else self._client.create_run(experiment, start_time=moment, tags=tags)
        metrics = [
            Metric(_NO_METRIC.sub("_", metric), value, moment, 0)
            for metric, value in made.metrics.items()
            if value is not None
        ]
        for begin in range(0, len(metrics), _BATCH):
            self._client.log_batch(run.info.run_id, metrics=metrics[begin : begin + _BATCH])
        params = [Param(name, shortened(value, _BATCH)) for name, value in _told(made).items() if value]
        self._client.log_batch(run.info.run_id, params=params)
        self._client.set_terminated(run.info.run_id, end_time=moment)
        return str(run.info.run_id)

    def _experiment_id(self) -> str:
        if self._experiment is None:
            found = self._client.get_experiment_by_name(EXPERIMENT)
            self._experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
        return self._experiment


def _told(made: ModelRegistered) -> dict[str, str | None]:
    lineage = made.lineage
    return {
        "version": made.version, "kind": made.kind, "purpose": made.purpose, "artifact_uri": made.artifact.uri,
        "artifact_sha256": made.artifact.sha256, "job_id": lineage.job_id, "requester": lineage.requester,
        "base_model": lineage.base_model, "base_model_sha256": lineage.base_model_sha256, "dataset_sha256": lineage.dataset_sha256,
        "started_from": lineage.started_from, "imported_from": lineage.imported.source if lineage.imported else None,
    }  # fmt: skip


def worded(error: Exception) -> Refused | Away:
    """Return what an error of the client means."""
    text = shortened(str(error), _LONGEST)
    return Refused(text) if getattr(error, "error_code", None) in _REFUSALS else Away(text)
