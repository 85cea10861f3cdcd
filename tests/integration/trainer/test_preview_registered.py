"""A registered data set is previewed, and a job on it estimated, before the job is started."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from schemas.artifacts import ArtifactRef
from schemas.datasets import DatasetRegistered
from schemas.results import DATASET
from schemas.row_digest import row_digest
from services.cli.main import app
from services.registry.datasets.queries import StoredDataset
from services.registry.datasets.views import stored_dataset
from tests.integration.trainer.test_erased_rows import WHOLE, erase
from tests.integration.trainer.test_registered_data import FORMS, first
from tests.steps import START

NAMED = "all@0123456789ab"


class Registry:
    """Answers for the registry's route of one data set."""

    def __init__(self) -> None:
        self.view: bytes | None = None
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = registry.view is not None and self.path == "/api/v1/datasets/all%400123456789ab"
                body = (
                    registry.view
                    if found and registry.view
                    else b'{"title": "Not found", "detail": "no data set", "status": 404}'
                )
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json" if found else "application/problem+json")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def has(self, artifact: ArtifactRef, preferences: ArtifactRef | None) -> None:
        made = DatasetRegistered(
            dataset="all", sha256="0123456789ab" + "0" * 52, dataset_sha256="d" * 64, artifact=artifact, preferences=preferences,
            rows={"train": 40}, metrics={}, reference="all.jsonl", registered_by="ana", job_id="job", step="prepare", attempt=1,
        )  # fmt: skip
        self.view = stored_dataset(StoredDataset(made.model_dump_json(), START)).model_dump_json().encode()


@pytest.fixture
def registry(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    registry = Registry()
    monkeypatch.setenv("NEUROWEAVER_HTTP", f"http://127.0.0.1:{registry.server.server_port}")
    monkeypatch.setenv("NEUROWEAVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEUROWEAVER_SOURCES_FOLDERS", f"{tmp_path},{base.parent}")
    yield registry
    registry.server.shutdown()
    registry.server.server_close()


def preview(base: Path, reference: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["datasets", "preview", reference, "-m", str(base), "--max-length", "64", *options])


@pytest.mark.parametrize("learns", FORMS)
def test_rows_are_shown_as_a_job_reads_them_without_those_that_are_erased(
    tmp_path: Path, base: Path, registry: Registry, learns: str
) -> None:
    stored = first(tmp_path, base, learns, split=WHOLE)
    artifacts = {name: stored.outputs[name] for name in (DATASET, "preferences") if name in stored.outputs}
    for ref in artifacts.values():
        erase(ref, "row-5")
    registry.has(artifacts[DATASET], artifacts.get("preferences"))
    result = preview(base, NAMED, "--learns", learns, "--json", "--rows", "50")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["metrics"]["rows_erased"] == 1
    assert "1 row is erased and left out" in found["notes"]
    assert not any(row["id"] == "row-5" for row in found["rows"])
    assert row_digest(FORMS[learns](4)) in (Path(artifacts[DATASET].uri) / "train.rows.txt").read_text()


def test_what_is_not_there_or_was_stored_otherwise_is_said(tmp_path: Path, base: Path, registry: Registry) -> None:
    assert "no data set" in str(preview(base, NAMED).exception)
    short = preview(base, "all@0123")
    assert (short.exit_code, "at least the first 12 digits" in short.stderr) == (2, True)
    stored = first(tmp_path, base, "answers", split=WHOLE)
    registry.has(stored.outputs[DATASET], None)
    assert "a registered data set is read as it was stored" in preview(base, NAMED, "--system-prompt", "Be brief.").stderr
    assert "without the pairs" in preview(base, NAMED, "--learns", "pairs").stderr
    (Path(stored.outputs[DATASET].uri) / "train.jsonl").write_text("altered")
    altered = preview(base, NAMED)
    assert (altered.exit_code, "is not what was registered" in altered.stderr) == (1, True)


def test_a_job_on_a_registered_data_set_is_estimated(tmp_path: Path, base: Path, registry: Registry) -> None:
    request: dict[str, Any] = {
        "job_id": "job", "requester": "ana", "pipeline": "sft", "base_model": str(base), "register_as": "m", "dataset": {"reference": NAMED},
    }  # fmt: skip
    file = tmp_path / "job.json"
    file.write_text(json.dumps(request))
    result = CliRunner().invoke(app, ["jobs", "estimate", str(file), "--json"])
    assert result.exit_code == 0, result.output
    assert {"train", "evaluate"} <= {step["step"] for step in json.loads(result.stdout)["steps"]}
