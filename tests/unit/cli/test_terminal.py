"""What a person reads where something is wrong: one sentence with a remedy and no traceback; with --json one object."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from services.cli.exits import Exit
from services.cli.program import as_typed
from tests.command import Ended, ended, unread

ANSWERS = {
    "a page": (200, "text/html", b"<html><body>It works!</body></html>"),
    "other JSON": (200, "application/json", b'{"hello": [1, 2]}'),
    "a list": (200, "application/json", b"[]"),
    "nothing": (204, "text/plain", b""),
    "no such page": (404, "text/html", b"<html>404</html>"),
    "other refusal": (404, "application/json", b'{"message": "no route", "errors": [1]}'),
    "a redirect": (302, "text/html", b""),
}


def neuroweaver(*arguments: str, **environment: str) -> Ended:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NEUROWEAVER_")}
    return ended(arguments, {**plain, "COLUMNS": "80", **environment})


@contextmanager
def another_program(answer: tuple[int, str, bytes] | None) -> Iterator[str]:
    """Its address; it never answers where `answer` is None."""
    ending = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if answer is None:
                ending.wait(300)
                return
            status, kind, body = answer
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "http://127.0.0.1:1/login")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 (as http.server calls it)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            ending.set()
            server.shutdown()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_another_http_server_is_told_from_neuroweaver(answer: tuple[int, str, bytes], tmp_path: Path) -> None:
    with another_program(answer) as address:
        for command in (
            ("jobs", "list"),
            ("jobs", "watch", "a"),
            ("models", "show", "a"),
            ("jobs", "cancel", "a", "--json"),
        ):
            done = neuroweaver(*command, NEUROWEAVER_HTTP=address)
            said = done.json["detail"] if "--json" in command else done.err
            assert done.code == Exit.UNREACHABLE, (command, done)
            assert "not as NeuroWeaver does" in said, (command, done)
            assert "correct NEUROWEAVER_HTTP" in said
            assert "Traceback" not in done.err
        status = neuroweaver("status", NEUROWEAVER_HTTP=address, NEUROWEAVER_HOME=str(tmp_path))
        assert (status.code, "Traceback" in status.err) == (Exit.UNREACHABLE, False)
        assert "another program answers" in status.out or "does not answer as NeuroWeaver does" in status.out


def test_ctrl_c_ends_a_command_that_waits_without_a_traceback() -> None:
    with another_program(None) as address:
        waiting = subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", "jobs", "list"],
            env={**os.environ, "NEUROWEAVER_HTTP": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hears_interrupts,
        )
        while not _asks(waiting.pid, urlsplit(address).port):
            assert waiting.poll() is None
            time.sleep(0.05)
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == Exit.INTERRUPTED
    assert "Traceback" not in err


def _hears_interrupts() -> None:
    """As in a terminal: a shell's background jobs, and so what a continuous integration starts, may ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _asks(pid: int, port: int | None) -> bool:
    """Whether the command is connected to the port. While it still imports, Python may drop an interrupt that comes in a callback."""
    found = psutil.Process(pid).net_connections("tcp")
    return any(one.raddr and one.raddr.port == port for one in found)


@pytest.mark.parametrize(
    ("arguments", "environment", "code"),
    [
        (("jobs", "list"), {"NEUROWEAVER_HTTP": "http://127.0.0.1:1"}, Exit.UNREACHABLE),
        (("jobs", "list"), {"NEUROWEAVER_HTTP": "nonsense"}, Exit.USAGE),
        (("jobs", "list", "--limit", "many"), {}, Exit.USAGE),
        (("models", "--nonsense"), {}, Exit.USAGE),
        (("topics", "plan"), {"NEUROWEAVER_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, Exit.UNREACHABLE),
        (("partitions", "list", "trainee"), {}, Exit.USAGE),
        (("dlq", "show", "orchestrator", "nowhere"), {}, Exit.USAGE),
        (("audit", "verify-export", "/nowhere/at/all"), {}, Exit.NOT_FOUND),
        (("projections", "verify"), {}, Exit.USAGE),
        (("jobs", "submit", "/nowhere/at/all"), {}, Exit.USAGE),
        (("demo", "--pipeline", "magic"), {}, Exit.USAGE),
        (("nothing",), {}, Exit.USAGE),
    ],
    ids=str,
)
def test_with_json_an_error_is_one_object_on_standard_output(
    arguments: tuple[str, ...], environment: dict[str, str], code: Exit
) -> None:
    done = neuroweaver(*arguments, "--json", **environment)
    assert done.code == code, done
    assert len(done.out.splitlines()) == 1
    assert done.json["exit"] == code
    assert done.json["title"]
    assert done.json["detail"]
    assert "neuroweaver:" not in done.err


@pytest.mark.parametrize("command", [("serve", "orchestrator"), ("status",), ("up",)], ids=" ".join)
def test_a_log_level_that_there_is_not_is_wrong_usage(command: tuple[str, ...], tmp_path: Path) -> None:
    done = neuroweaver(*command, NEUROWEAVER_LOG_LEVEL="LOUD", NEUROWEAVER_HOME=str(tmp_path / "home"))
    assert done.code == Exit.USAGE, done
    assert done.err == "neuroweaver: NEUROWEAVER_LOG_LEVEL=LOUD: choose DEBUG, INFO, WARNING, ERROR or CRITICAL\n"


@pytest.mark.parametrize("written", [b"{", b"[]", b"\xff\xfe", b'{"pid": 99999999999999999999}'])
@pytest.mark.parametrize("runs", [False, True])
def test_a_broken_state_file_is_said_with_its_remedy(written: bytes, runs: bool, tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_bytes(written)
    lock = tmp_path / "stack.lock"
    lock.write_text(str(os.getpid()))
    with lock.open("r+") as held:
        if runs:
            fcntl.flock(held, fcntl.LOCK_EX)
        done = neuroweaver("status", NEUROWEAVER_HOME=str(tmp_path))
    assert "Traceback" not in done.err
    if runs:
        assert done.code == Exit.FAILED
        assert "stack.json cannot be read by this version" in done.err
        assert "neuroweaver down" in done.err
    else:
        assert done.code == Exit.UNREACHABLE


def test_a_lock_that_names_no_process_is_said_with_its_remedy(tmp_path: Path) -> None:
    lock = tmp_path / "stack.lock"
    lock.write_text("somebody")
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = neuroweaver("down", NEUROWEAVER_HOME=str(tmp_path))
    assert done.code == Exit.FAILED
    assert "stack.lock cannot be read by this version" in done.err


@pytest.mark.parametrize("arguments", [("status", "--json"), ("demo", "--dry-run"), ("status",)], ids=" ".join)
def test_a_closed_pipe_ends_a_command_without_a_word(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert unread(arguments, {**os.environ, "NEUROWEAVER_HOME": str(tmp_path / "home")}) == Ended(Exit.NOBODY_READS, "", "")


def dry_run(folder: Path, pipeline: object, *options: str) -> Ended:
    """Have a request of this pipeline checked only."""
    request = {
        "pipeline": pipeline,
        "requester": "me",
        "base_model": "no/where",
        "dataset": {"reference": "no/where"},
        "register_as": "m",
    }
    (folder / "job.json").write_text(json.dumps(request))
    done = neuroweaver("jobs", "submit", str(folder / "job.json"), "--dry-run", *options)
    assert done.code == Exit.OK, done
    return done


def test_a_dry_run_says_what_it_did_not_check(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "sft")
    assert "Not checked" in done.err
    assert "whether base_model and dataset exist" in done.err
    found = dry_run(tmp_path, "sft", "--json").json
    assert (bool(found["not_checked"]), found["notes"]) == (True, [])


def test_a_dry_run_says_that_a_version_would_not_be_evaluated(tmp_path: Path) -> None:
    steps = [
        {"name": "prepare", "kind": "prepare"},
        {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
        {"name": "register", "kind": "register", "inputs": {"adapter": "train.adapter"}},
    ]
    done = dry_run(tmp_path, steps)
    assert "Note: pipeline.2.needs: no step that evaluates what register registers comes before it" in " ".join(
        done.err.split()
    )


_HOLDS = """
import socket, sys
with open(sys.argv[1] + "/stack.lock", "w+"), socket.create_server(("127.0.0.1", 0)) as held:
    print(held.getsockname()[1], flush=True)
    sys.stdin.read()
"""
"""A process of its own: this one may hold the locks of other tests' stacks."""


def test_a_stack_of_another_folder_that_holds_the_port_is_named_with_how_to_use_it(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        port = holder.stdout.readline().strip()
        for command in (("up", "--detach"), ("jobs", "list"), ("up",)):
            done = neuroweaver(*command, NEUROWEAVER_HOME=str(tmp_path / "mine"), NEUROWEAVER_HTTP_PORT=port)
            assert done.code == Exit.FAILED, done
            assert done.err.count(f"NEUROWEAVER_HTTP_PORT={port}") == 1
            assert f"export NEUROWEAVER_HOME={other}" in done.err
            assert "export NEUROWEAVER_HTTP_PORT=0" in done.err


def test_the_job_file_of_the_readme_is_valid_as_printed(tmp_path: Path) -> None:
    readme = Path("README.md").read_text()
    printed = readme.partition("```json\n")[2].partition("```")[0]
    (tmp_path / "job.json").write_text(printed)
    done = neuroweaver("jobs", "submit", str(tmp_path / "job.json"), "--dry-run", "--json")
    assert done.json["valid"], done
    request = json.loads(printed)
    rows = (Path(request["dataset"]["reference"]) / "train.jsonl").read_text().splitlines()
    assert set(request["dataset"]["columns"].values()) <= json.loads(rows[0]).keys()
    splits = {path.stem for path in Path(request["dataset"]["reference"]).glob("*.jsonl")}
    assert set(request["dataset"]["split"].values()) <= splits


def test_every_route_that_a_message_of_a_service_names_has_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = re.compile(r"\b(?:GET|POST|PUT) (?:/|\{API\})[^;\"]*")
    named = {
        (path.name, re.sub(r"\{(job_id|quote\(.*?\))\}", "a-job", found.replace("{API}", "/api/v1")))
        for path in Path("services").glob("*/*.py")
        for line in path.read_text().splitlines()
        if "description=" not in line and '"""' not in line
        for found in routes.findall(line)
    }
    assert len(named) >= 3
    for _, words in named:
        monkeypatch.setattr(sys, "argv", ["neuroweaver"])
        assert as_typed(words).startswith("`neuroweaver "), words


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("see `neuroweaver status`", "see `.venv/bin/neuroweaver status`"),
        (
            "neuroweaver topics plan, then neuroweaver topics apply",
            ".venv/bin/neuroweaver topics plan, then .venv/bin/neuroweaver topics apply",
        ),
        ("topic neuroweaver.jobs, pip install neuroweaver now", "topic neuroweaver.jobs, pip install neuroweaver now"),
    ],
)
def test_commands_in_messages_are_as_the_program_was_called(
    said: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / ".venv" / "bin" / "neuroweaver"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [".venv/bin/neuroweaver", "status"])
    assert as_typed(said) == typed
    monkeypatch.setenv("PATH", str(script.parent))
    assert as_typed(said) == said, "the shell finds this very program by its name"
