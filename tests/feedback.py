"""Rows and judges for tests of feedback: small values made by hand, and a judge that says what it is told."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.artifacts import ArtifactRef
from schemas.lines import Candidates, Message
from schemas.recipes.comparing import ComparisonSettings
from schemas.recipes.feedback import FeedbackSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.reward import RewardModelSettings
from schemas.steps import CompareSettings, LabelSettings, ScoreSettings, TrainSettings
from services.chassis.executor.child import Context
from services.chassis.executor.messages import ChildTask, FinalMessage, RunningMessage
from services.chassis.storage.artifacts.store import ArtifactStore
from services.feedback.judges.judge import Orders, TextToJudge, Tick
from tests.allowed import IN_TESTS


def reply(text: str, queue: str = "billing") -> str:
    """Return a JSON answer."""
    return json.dumps({"queue": queue, "reply": text})


def row(*candidates: str, row_id: str = "train-1", **columns: str) -> Candidates:
    """Return a prompt with candidates."""
    asked = (Message(role="user", content=f"help with {row_id}"),)
    return Candidates(id=row_id, messages=asked, completion="", columns=columns, candidates=candidates)


def quiet(done: int, of: int) -> None:
    """Ignore progress."""


GOOD, BAD = "Sorry about that.", "No idea."
"""The better and the worse answer to ASKED."""
ASKED = "help with this"


def trained_judge(home: Path, base: Path) -> ArtifactRef:
    """Train a reward model that prefers GOOD to BAD."""
    from services.trainer.steps.train import train
    from tests.trainer import context_of, put_lines

    messages = [{"role": "user", "content": ASKED}]
    pairs = [{"id": str(n), "messages": messages, "chosen": GOOD, "rejected": BAD} for n in range(2)]
    optimiser = OptimiserSettings(learning_rate=1e-2, steps=4, batch_size=2)
    settings = TrainSettings(base_model=str(base), reward=RewardModelSettings(precision="fp32", optimiser=optimiser))
    made = train(context_of(home, settings, {"preferences": put_lines(home, preferences=pairs)}))
    return made.outputs["adapter"]


class Told:
    """A judge with given scores by text."""

    name = "told"

    def __init__(self, scores: dict[str, float | None]) -> None:
        self._scores = scores
        self.asked: list[str] = []

    def score(self, texts: Sequence[TextToJudge], tick: Tick) -> list[float | None]:
        self.asked += [text.text for text in texts]
        return [self._scores[text.text] for text in texts]


class Comparing(Told):
    """A judge that compares with a function of the two texts, in the order in which they are shown."""

    def __init__(self, first_shown_is_better: Callable[[str, str], float | None]) -> None:
        super().__init__({})
        self._better = first_shown_is_better

    def compare(self, pairs: Sequence[tuple[TextToJudge, TextToJudge]], tick: Tick) -> list[Orders]:
        found = []
        for one, other in pairs:
            backward = self._better(other.text, one.text)
            found.append(Orders(self._better(one.text, other.text), None if backward is None else -backward))
        return found


class Pipe:
    """Replaces a child's pipe to its worker."""

    def __init__(self) -> None:
        self.sent: list[RunningMessage | FinalMessage] = []

    def send(self, message: RunningMessage | FinalMessage) -> None:
        self.sent.append(message)


class Step:
    """One feedback step with its own store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = ArtifactStore(str(home / "artifacts"))

    def artifact(self, name: str, lines: Sequence[BaseModel]) -> ArtifactRef:
        """Store an artifact with one file of JSON lines."""
        folder = self.home / f"{name}-source"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))
        return self.store.put(folder)

    def context(
        self, kind: str, lines: Sequence[BaseModel], feedback: dict[str, Any], base_model: str = "base", **task: Any
    ) -> Context:
        """Return the context of a handler; `feedback` has the form of a request."""
        settings = FeedbackSettings.model_validate(feedback)
        name = "candidates" if kind == "label" else "predictions"
        given: dict[str, Any] = {
            "job_id": "job-1",
            "step": kind,
            "attempt": 1,
            "kind": kind,
            "settings": (LabelSettings if kind == "label" else ScoreSettings)(base_model=base_model, feedback=settings),
            "inputs": {name: self.artifact(name, lines)} if kind != "compare" else {},
            "results": {},
            "memory_failures": 0,
            "artifacts": str(self.home / "artifacts"),
            "checkpoints": self.home / "checkpoints",
            "lease": "lease-1",
            "cache": self.home / "cache",
            "allowed": IN_TESTS,
            **task,
        }
        return Context(ChildTask(**given), Pipe())  # type: ignore[arg-type]

    def comparing(self, pairs: ArtifactRef, feedback: dict[str, Any]) -> Context:
        """Return the context of a step of kind compare."""
        settings = FeedbackSettings.model_validate(feedback)
        compared = CompareSettings(base_model="base", comparison=ComparisonSettings(pairs=pairs), feedback=settings)
        return self.context("compare", (), {}, settings=compared)

    def lines(self, artifact: ArtifactRef, name: str) -> list[dict[str, Any]]:
        """Return the lines of a file of an artifact."""
        text = (self.store.fetch(artifact, self.home / "cache") / name).read_text()
        return [json.loads(line) for line in text.splitlines()]

    def report(self, artifact: ArtifactRef) -> dict[str, Any]:
        """Return an artifact's `report.json`."""
        report: dict[str, Any] = json.loads((self.store.fetch(artifact, self.home / "cache") / "report.json").read_text())
        return report
