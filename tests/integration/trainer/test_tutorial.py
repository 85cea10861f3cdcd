"""The tutorial's files and requests work as it says, with a tiny model in place of the one that is downloaded."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.requests import JobRequest
from services.cli.main import app
from tests.integration.trainer.test_own_pairs import run_plan

TUTORIAL = Path(__file__).parents[3] / "docs" / "tutorials" / "fine-tune-your-data.md"
FILES = dict(re.findall(r"```json file=(\S+)\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tutorial's files, in the working folder."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROWEAVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEUROWEAVER_SOURCES_FOLDERS", f"{tmp_path},{base.parent}")
    return tmp_path


def preview(base: Path, *arguments: str) -> str:
    return CliRunner().invoke(app, ["datasets", "preview", *arguments, "-m", str(base)]).output


def run(folder: Path, base: Path, name: str) -> dict[str, Any]:
    request = json.loads(FILES[name])
    request["dataset"]["reference"] = str(folder / request["dataset"]["reference"])
    return run_plan(folder, JobRequest.model_validate({**request, "base_model": str(base)}))


def test_the_preview_of_the_alpaca_file_finds_what_the_tutorial_says(folder: Path, base: Path) -> None:
    said = preview(base, "shop.json")
    assert "Alpaca instructions with their outputs, in the columns instruction, output, input" in said
    assert "1 row is a repetition of an earlier row" in said
    assert "1 row is left out: column 'output' is empty (shop.json element 11)" in said
    assert "REFUSED" not in said


def test_the_first_request_trains_and_measures(folder: Path, base: Path) -> None:
    results = run(folder, base, "shop-job.json")
    assert results["train"].metrics["steps"] == 30
    assert results["evaluate"].metrics["loss"] < results["evaluate-base"].metrics["loss"]


def test_the_second_request_learns_the_pairs(folder: Path, base: Path) -> None:
    assert "preference pairs, in the columns conversations, chosen, rejected" in preview(
        base, "tone.json", "--learns", "pairs"
    )
    results = run(folder, base, "tone-job.json")
    assert results["train"].metrics["reward_accuracy"] > 0.5


def test_tool_calls_are_refused_by_name_where_the_template_does_not_write_them(folder: Path, base: Path) -> None:
    assert "tool" in preview(base, "calls.json")


def test_the_commands_of_the_tutorial_are_commands(folder: Path) -> None:
    commands = re.findall(r"^neuroweaver (\w+)(?: (\w+))?", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands
    for command in commands:
        names = [name for name in command if name and name != "up"] or ["up"]
        assert CliRunner().invoke(app, [*names[:2], "--help"]).exit_code == 0
