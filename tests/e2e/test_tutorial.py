"""The tutorial `from-request-to-production.md` is run as it stands, with a tiny base model, against services that run already."""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.command import ended
from tests.e2e.system import System, wait_for
from tests.front import front
from tests.mlflow_server import MlflowServer

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "from-request-to-production.md"
BLOCKS = re.findall(r"^```(\S+) ?(\S*)\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
FAILS = "  # exit code 1"
LEFT_OUT = ("neuroweaver up", "neuroweaver down")
"""The test's services run already, and serve other tests after it."""
CALLS = 500
"""The fewest calls of the story."""


@dataclass
class Reader:
    """Somebody who does what the tutorial says, in a folder of their own."""

    folder: Path
    environment: Mapping[str, str]
    replaced: Mapping[str, str]
    """What stands for a name of the tutorial here."""
    said: str = ""
    """What the commands of the latest block printed."""
    callers: "subprocess.Popen[bytes] | None" = None
    block: list[str] = field(default_factory=list)
    repeats: bool = False
    """Whether the latest block is repeated until it says what the tutorial shows."""

    def follow(self, kind: str, how: str, text: str) -> None:
        """Do what one block says."""
        for name, value in self.replaced.items():
            text = text.replace(name, value)
        match kind, how:
            case _, file if file.startswith("file="):
                (self.folder / file.removeprefix("file=")).write_text(text, encoding="utf-8")
            case "sh", "second-terminal":
                with (self.folder / "calls").open("w") as out:
                    self.callers = subprocess.Popen(words(text), cwd=self.folder, env=dict(self.environment), stdout=out)
            case "sh", _:
                self.block, self.repeats = text.splitlines(), how == "until"
                self.run()
            case _:
                self.compare(text, self.end_callers() if how == "callers" else self.said)

    def compare(self, shown: str, said: str) -> None:
        """What was printed has the lines that the tutorial shows, perhaps after a while."""
        if self.repeats:
            wait_for(
                lambda: not missing(shown, self.said) or self.repeat(), lambda: f"{missing(shown, self.said)}: {self.said}"
            )
        else:
            assert missing(shown, said) == [], said

    def repeat(self) -> bool:
        """Run the latest block again a second later; always false, because what it says has to be looked at."""
        time.sleep(1)
        self.run()
        return False

    def run(self) -> None:
        """Run the commands of the latest block."""
        self.said = "".join(map(self.one, self.block))

    def one(self, line: str) -> str:
        """Run one command; it must end as the tutorial says."""
        command = line.removesuffix(FAILS)
        if command.startswith(LEFT_OUT):
            return ""
        if command.startswith("neuroweaver "):
            done = ended(shlex.split(command)[1:], self.environment)
            code, said = done.code, done.out + done.err
        else:
            ran = subprocess.run(
                words(command), cwd=self.folder, env=dict(self.environment), capture_output=True, text=True
            )
            code, said = ran.returncode, ran.stdout + ran.stderr
        assert code == (1 if line.endswith(FAILS) else 0), f"{line}: {code}\n{said}"
        return said

    def end_callers(self) -> str:
        """Press Ctrl-C in the second terminal, once it has called often enough."""
        assert self.callers is not None
        wait_for(lambda: self.calls() >= CALLS, lambda: (self.folder / "calls").read_text()[-500:])
        self.callers.send_signal(signal.SIGINT)
        assert self.callers.wait(120) == 0
        return (self.folder / "calls").read_text()

    def calls(self) -> int:
        """Return how often it has called."""
        return max(
            (int(one) for one in re.findall(r"^(\d+) calls$", (self.folder / "calls").read_text(), re.MULTILINE)), default=0
        )


def words(line: str) -> list[str]:
    """Return a command of a shell as a process; `python` is the one of the tests."""
    return ["sh", "-c", f"exec 2>&1; {re.sub(r'^python ', f'exec {sys.executable} ', line)}"]


def missing(wanted: str, said: str) -> list[str]:
    """Return the lines of the tutorial that no printed line is like; `…` stands for anything, and for nothing at the end of a line."""
    lines = [" ".join(line.split()) for line in said.splitlines()]
    patterns = {
        line: re.escape(" ".join(line.split())).replace(r"\ …", "(?: .*)?").replace("…", ".*")
        for line in wanted.splitlines()
    }
    return [line for line, pattern in patterns.items() if not any(re.fullmatch(pattern, one) for one in lines)]


@pytest.fixture
def reader(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    folder = system.home / "data" / "tutorial"
    folder.mkdir()
    monkeypatch.chdir(folder)
    ports = {name: process.port for name, process in system.services.items()}
    behind = {"training": ports["orchestrator"], **dict.fromkeys(("models", "deployments", "v1"), ports["registry"])}
    server = MlflowServer(tmp_path)
    server.start()
    with front(behind) as address:
        environment = {**system.services["registry"].env, "NEUROWEAVER_HTTP": address, "COLUMNS": "200"}
        names = {
            '"reference": "': f'"reference": "{folder}/',
            "http://127.0.0.1:5000": server.uri,
            "HuggingFaceTB/SmolLM2-135M-Instruct": str(system.base_model),
        }
        reader = Reader(folder, environment, names)
        yield reader
    if reader.callers is not None:
        reader.callers.kill()
    server.kill()


def test_a_reader_sees_what_the_tutorial_says(reader: Reader) -> None:
    assert BLOCKS
    for kind, how, text in BLOCKS:
        reader.follow(kind, how, text)
