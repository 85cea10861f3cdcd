"""What tests of the trainer share: a context without a worker, and small data sets in its artifact form."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.progress import StepProgressed
from schemas.results import ADAPTER, MODEL
from schemas.steps import StepSettings
from services.chassis.executor.child import Channel, Context
from services.chassis.executor.messages import ChildTask, FinalMessage, MeasuredMessage, ProgressMessage, RunningMessage
from services.chassis.storage.artifacts.store import ArtifactStore
from tests.allowed import IN_TESTS


class Reports(Channel):
    """Stores what a child would send to its worker; at `stop_at` done units it asks the run to stop."""

    def __init__(self) -> None:
        self.progress: list[StepProgressed] = []
        self.measured: dict[int, dict[str, float]] = {}

    def send(self, message: RunningMessage | FinalMessage) -> None:
        if isinstance(message, ProgressMessage):
            self.progress.append(message.progress)
        if isinstance(message, MeasuredMessage):
            self.measured[message.step] = message.values


def task_of(
    home: Path,
    settings: StepSettings,
    inputs: Mapping[str, ArtifactRef] | None = None,
    *,
    step: str = "step",
    attempt: int = 1,
    memory_failures: int = 0,
    results: Mapping[str, StepResult] | None = None,
) -> ChildTask:
    """Return a task whose files are all below `home`; every call has its own lease."""
    return ChildTask(
        job_id="job", step=step, attempt=attempt, kind=settings.kind, settings=settings, inputs=dict(inputs or {}),
        results=dict(results or {}), memory_failures=memory_failures, artifacts=str(home / "artifacts"),
        checkpoints=home / "checkpoints" / "job" / step, lease=uuid4().hex, cache=home / "cache", allowed=IN_TESTS,
    )  # fmt: skip


def context_of(home: Path, settings: StepSettings, inputs: Mapping[str, ArtifactRef] | None = None, **more: Any) -> Context:
    """Return a context as `run_child` passes it to a handler."""
    return Context(task_of(home, settings, inputs, **more), Reports())


def put_lines(home: Path, **files: Sequence[Mapping[str, object]]) -> ArtifactRef:
    """Store an artifact of JSON lines files, named without extension."""
    folder = home / f"made-{uuid4().hex}"
    folder.mkdir(parents=True)
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return ArtifactStore(str(home / "artifacts")).put(folder)


def row(number: int, prompt: str, completion: str, **columns: str) -> dict[str, object]:
    """Return one line of a `dataset` artifact."""
    messages = [{"role": "user", "content": prompt}]
    return {"id": f"row-{number}", "messages": messages, "completion": completion, "columns": columns}


def lines_of(ref: ArtifactRef, name: str) -> list[dict[str, Any]]:
    """Return the JSON lines of a file in a local artifact."""
    return [json.loads(line) for line in (Path(ref.uri) / name).read_text(encoding="utf-8").splitlines()]


def stop_after(context: Context, steps: int) -> None:
    """Let the run be asked to end once it has reported so many steps."""

    def progress(done: int, *_: Any, **__: Any) -> None:
        if done >= steps:
            context.stop()

    context.progress = progress  # type: ignore[method-assign]


def weights_of(trained: StepResult) -> ArtifactRef | None:
    """Return the adapter or the model that a training has made; None of a process that is not the first of its training."""
    return trained.outputs.get(ADAPTER) or trained.outputs.get(MODEL)
