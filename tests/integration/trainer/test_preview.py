"""Before a job is started, `datasets preview` shows what it would learn and what it would refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app

GOOD = [{"prompt": f"Open on day {number}?", "completion": "Ja, café."} for number in range(12)]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROWEAVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEUROWEAVER_SOURCES_FOLDERS", f"{tmp_path},{base.parent}")


def shown(home: Path, base: Path, rows: list[Any], *options: str) -> Result:
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(app, ["datasets", "preview", str(home / "rows.jsonl"), "-m", str(base), *options])


def test_rows_are_shown_as_tokens_with_the_learnt_ones_marked(tmp_path: Path, base: Path) -> None:
    result = shown(tmp_path, base, GOOD, "--rows", "1")
    assert result.exit_code == 0, result.output
    assert "layout                   prompts with their completions, in the columns prompt, completion" in result.stdout
    assert " tokens, 11 learnt" in result.stdout
    assert "  <|im_start|>|a|s|s|i|s|t|a|n|t|\\n\n+ J|a|,| |c|a|f|é|.|<|im_end|>\n" in result.stdout
    assert "row-2" not in result.stdout


def test_findings_are_said_and_a_refusal_still_shows_the_rows(tmp_path: Path, base: Path) -> None:
    few = shown(tmp_path, base, [*GOOD, GOOD[0], {"prompt": "a", "completion": " "}])
    assert few.exit_code == 0
    assert "note: 1 row is left out: column 'completion' is empty (rows.jsonl line 14)" in few.stdout
    assert "note: 1 row is a repetition" in few.stdout
    many = shown(tmp_path, base, [*GOOD, *[{"prompt": "a", "completion": " "}] * 2])
    assert many.exit_code == 1
    assert "REFUSED: dataset.columns.completion: column 'completion' is empty" in many.stdout
    assert "row-1:" in many.stdout


def test_json_has_every_token(tmp_path: Path, base: Path) -> None:
    found = json.loads(shown(tmp_path, base, GOOD, "--rows", "2", "--json").stdout)
    (row, _) = found["rows"]
    assert "".join(piece["text"] for piece in row["pieces"] if piece["learnt"]) == "Ja, café.<|im_end|>"
    assert row["tokens"] == sum(len(piece["ids"]) for piece in row["pieces"])
    assert found["metrics"]["rows_train"] == 12
    assert found["refused"] == []


def test_columns_are_named_as_in_a_request(tmp_path: Path, base: Path) -> None:
    rows = [{"q": "a", "a": "b"}]
    named = shown(tmp_path, base, rows, "--column", "prompt=q", "--column", "completion=a")
    assert named.exit_code == 0, named.output
    unnamed = shown(tmp_path, base, rows)
    assert unnamed.exit_code == 1
    assert "the layout of the rows is not recognised" in unnamed.stderr
    misspelt = shown(tmp_path, base, rows, "--column", "promt=q")
    assert misspelt.exit_code == 2
    assert "promt" in misspelt.stderr


def test_pairs_are_previewed_as_what_is_preferred(tmp_path: Path, base: Path) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    assert "preference pairs" in shown(tmp_path, base, rows).stderr
    assert "+ b|<|im_end|>" in shown(tmp_path, base, rows, "--learns", "pairs").stdout


def test_a_base_model_or_file_that_is_not_there_is_said(tmp_path: Path, base: Path) -> None:
    assert "base_model" in shown(tmp_path, tmp_path / "nowhere", GOOD).stderr
    result = CliRunner().invoke(app, ["datasets", "preview", str(tmp_path / "none.jsonl"), "-m", str(base)])
    assert result.exit_code == 1
    assert "dataset.reference" in result.stderr
