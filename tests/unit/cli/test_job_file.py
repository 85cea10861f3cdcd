"""A request as a person writes it becomes what travels on the wire; what cannot is said before anything is started."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.job_file import NoRequest, read_request
from services.cli.jobs import app
from tests.unit.orchestrator.scenario import a_request


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "request"
    file.write_text(text)
    return file


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    yaml = "job_id: a\nrequester: me\ndeadline: 2030-01-01T00:00:00Z\ndataset:\n  reference: /data\npriority: 3\n"
    same = {
        "job_id": "a",
        "requester": "me",
        "deadline": "2030-01-01T00:00:00Z",
        "dataset": {"reference": "/data"},
        "priority": 3,
    }
    assert read_request(written(tmp_path, yaml)) == read_request(written(tmp_path, json.dumps(same))) == same


def test_a_request_without_an_id_gets_one(tmp_path: Path) -> None:
    ids = {read_request(written(tmp_path, "requester: me"))["job_id"] for _ in range(2)}
    assert len(ids) == 2


@pytest.mark.parametrize("text", ["[1", "- a", "text", "", "a: !!set {b}", "a: .nan", "a: !!python/object:os.system {}"])
def test_what_is_no_request_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(NoRequest):
        read_request(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(NoRequest, match=r"none\.json: no such file or directory; name a file"):
        read_request(tmp_path / "none.json")
    with pytest.raises(NoRequest, match="is a directory; name a file"):
        read_request(tmp_path)
    (tmp_path / "job.json").write_bytes("é".encode("latin-1"))
    with pytest.raises(NoRequest, match="not a text in UTF-8"):
        read_request(tmp_path / "job.json")


def submit(request: dict[str, Any], *options: str) -> Any:
    return CliRunner().invoke(app, ["submit", "-", "--dry-run", *options], input=json.dumps(request))


def test_a_dry_run_shows_the_plan_and_starts_nothing() -> None:
    result = submit(a_request(pipeline="rlaif"))
    assert result.exit_code == 0
    assert "align" in result.stdout
    assert "train (dpo)" in result.stdout


def test_a_request_that_the_page_on_training_shows_can_be_planned() -> None:
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    request = page.partition("```yaml\n")[2].partition("```")[0]
    result = CliRunner().invoke(app, ["submit", "-", "--dry-run"], input=request)
    assert result.exit_code == 0, result.output
    assert "train (grpo)" in result.stdout


def test_a_dry_run_prints_request_and_plan_as_json() -> None:
    result = submit(a_request(), "--json")
    answer = json.loads(result.stdout)
    assert answer["valid"] is True
    assert answer["request"]["training"]["lora"]["rank"] == 16
    assert [step["name"] for step in answer["plan"]] == ["prepare", "evaluate-base", "train", "evaluate", "register"]


def test_a_dry_run_of_a_faulty_request_ends_with_1_and_its_reasons() -> None:
    result = submit(a_request(pipeline="magic", priority=10_000), "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert [reason["field"] for reason in answer["reasons"]] == ["pipeline", "priority"]


def test_a_file_that_is_not_there_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["submit", "/nowhere/request.yaml", "--dry-run"])
    assert result.exit_code == 2
