"""The command line answers at once, ends with exit codes that mean something, and explains what it can."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import httpx2
import pytest
from aiokafka.errors import KafkaConnectionError
from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError
from sqlalchemy.exc import DBAPIError

from services.cli.exits import Exit
from services.cli.failures import explain
from services.cli.listening import PortTaken, address_of, listen
from services.cli.settings import CliSettings
from services.devstack.process import ServerFailure
from services.devstack.state import StackBusy
from services.registry.deploying.settings import ServingSettings

_HEAVY = ("torch", "transformers", "fastapi", "sqlalchemy", "aiokafka", "pydantic", "httpx2")


def neuroweaver(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['neuroweaver', '--help']\n"
        "from services.cli.main import app\n"
        "try: app()\n"
        f"except SystemExit: print('loaded:', [name for name in {_HEAVY!r} if name in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "loaded: []" in answer.stdout
    for command in ("up", "down", "status", "serve", "demo", "jobs", "models", "topics", "migrate", "doctor"):
        assert f" {command} " in answer.stdout


def test_an_unknown_service_is_wrong_usage_and_the_known_are_named() -> None:
    answer = neuroweaver("serve", "trainee")
    assert answer.returncode == Exit.USAGE
    assert "SERVICE=trainee" in answer.stderr
    assert "orchestrator, trainer, feedback, registry" in answer.stderr


def test_an_unknown_option_is_wrong_usage() -> None:
    assert neuroweaver("status", "--jason").returncode == Exit.USAGE


def test_a_setting_that_is_no_number_is_wrong_usage_and_named() -> None:
    answer = neuroweaver("status", NEUROWEAVER_HTTP_PORT="many")
    assert answer.returncode == Exit.USAGE
    assert "NEUROWEAVER_HTTP_PORT=many" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_status_of_nothing_says_so_to_people_and_to_programs(tmp_path: Path) -> None:
    for_people = neuroweaver("status", NEUROWEAVER_HOME=str(tmp_path))
    assert for_people.returncode == Exit.UNREACHABLE
    assert "neuroweaver up" in for_people.stdout
    for_programs = neuroweaver("status", "--json", NEUROWEAVER_HOME=str(tmp_path))
    assert for_programs.returncode == Exit.UNREACHABLE
    assert json.loads(for_programs.stdout)["status"] == "not running"


def test_stopping_nothing_is_no_failure(tmp_path: Path) -> None:
    answer = neuroweaver("down", NEUROWEAVER_HOME=str(tmp_path))
    assert answer.returncode == Exit.OK
    assert "No stack" in answer.stdout


def test_an_absent_cluster_is_not_reachable() -> None:
    answer = neuroweaver("topics", "plan", NEUROWEAVER_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert answer.returncode == Exit.UNREACHABLE
    assert "Traceback" not in answer.stderr


def test_a_taken_port_is_found_before_anything_starts() -> None:
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert address_of(bound) == f"http://127.0.0.1:{port}"
        with pytest.raises(PortTaken, match=f"NEUROWEAVER_HTTP_PORT={port}.*set another port"):
            listen("127.0.0.1", port)


def test_an_address_for_all_interfaces_is_shown_as_this_machine_reaches_it() -> None:
    with listen("0.0.0.0", 0) as bound:
        assert address_of(bound).startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("oops", "NEUROWEAVER_SERVING_VLLM: it is not valid JSON"),
        ('[{"url": "gpu-1", "base_model": "b"}]', "NEUROWEAVER_SERVING_VLLM 0 url=gpu-1: String should match"),
    ],
)
def test_a_setting_of_a_group_is_named_in_full_and_one_that_is_no_json_says_so(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("NEUROWEAVER_SERVING_VLLM", value)
    with pytest.raises((ValidationError, SettingsError)) as caught:
        ServingSettings()
    explained = explain(caught.value)
    assert explained is not None
    assert (explained[0], explained[1].startswith(words)) == (Exit.USAGE, True), explained


def test_known_failures_have_their_exit_code_and_unknown_ones_keep_their_traceback() -> None:
    assert explain(StackBusy(Path("home"))) == (Exit.FAILED, str(StackBusy(Path("home"))))
    assert explain(ServerFailure("Kafka ended")) == (Exit.FAILED, "Kafka ended")
    for away in (KafkaConnectionError("no"), ConnectionRefusedError("no"), TimeoutError(), socket.gaierror("no")):
        code, _ = explain(away) or (None, "")
        assert code == Exit.UNREACHABLE, away
    silent = httpx2.ConnectError("refused", request=httpx2.Request("GET", "http://127.0.0.1:1/x"))
    code, words = explain(silent) or (None, "")
    assert code == Exit.UNREACHABLE
    assert "http://127.0.0.1:1/x" in words
    code, _ = explain(PermissionError("home is not yours")) or (None, "")
    assert code == Exit.FAILED
    with pytest.raises(ValidationError) as invalid:
        CliSettings(http_port=70000)
    code, words = explain(invalid.value) or (None, "")
    assert code == Exit.USAGE
    assert "NEUROWEAVER_HTTP_PORT=70000" in words
    assert explain(KeyError("a fault of ours")) is None


@pytest.mark.parametrize(
    "error", [asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError]
)
def test_a_database_that_was_never_migrated_is_said_with_its_remedy(error: type[asyncpg.PostgresError]) -> None:
    original = Exception("as SQLAlchemy wraps it")
    original.__cause__ = error('relation "operational.position" does not exist')

    code, words = explain(DBAPIError("SELECT 1", {}, original)) or (None, "")

    assert code is Exit.FAILED
    assert 'relation "operational.position" does not exist; run `neuroweaver migrate`' in words


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_database_that_refuses_us_is_said_in_its_own_words(wrapped: bool) -> None:
    refused: Exception = asyncpg.InvalidPasswordError('password authentication failed for user "u"')
    if wrapped:
        original = Exception("as SQLAlchemy wraps it")
        original.__cause__ = refused
        refused = DBAPIError("SELECT 1", {}, original)

    code, words = explain(refused) or (None, "")

    assert code is Exit.FAILED
    assert words.startswith('the database refuses: InvalidPasswordError: password authentication failed for user "u"')
