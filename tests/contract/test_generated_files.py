"""What other languages and people read is generated, committed, and up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.generate.__main__ import ROOT, main
from schemas.generate.files import ASYNC_API, PAGE, SCHEMAS, generated, stale, write
from schemas.topics import EVENT_TYPES


def test_the_committed_files_are_up_to_date() -> None:
    assert stale(ROOT, generated()) == [], "run: python -m schemas.generate"


def test_there_is_a_schema_for_every_event_a_document_and_a_page() -> None:
    assert set(generated()) == {*(SCHEMAS / f"{name}.json" for name in EVENT_TYPES), ASYNC_API, PAGE}


def test_every_process_generates_the_same_bytes() -> None:
    script = (
        "import hashlib, schemas.generate.files as f; "
        "print(hashlib.sha256(repr(sorted(f.generated().items())).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_check_names_what_is_out_of_date_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, generated())
    (tmp_path / ASYNC_API).write_text("{}")
    (tmp_path / PAGE).unlink()
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"out of date: {PAGE}",
        f"out of date: {ASYNC_API}",
        "run: python -m schemas.generate",
    ]
    assert (tmp_path / ASYNC_API).read_text() == "{}"


def test_the_command_brings_all_up_to_date_and_removes_the_schema_of_an_event_that_is_no_more(tmp_path: Path) -> None:
    write(tmp_path, generated())
    gone = tmp_path / SCHEMAS / "JobForgotten.json"
    gone.write_text("{}")
    assert main(["--check"], tmp_path) == 1
    assert main([], tmp_path) == 0
    assert not gone.exists()
    assert main(["--check"], tmp_path) == 0
