"""Reads the judge and writes the artifacts of both feedback steps (JSON lines and a report), and reports their progress."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from schemas.artifacts import ArtifactRef
from schemas.judgements import registered_judge
from schemas.recipes.feedback import JudgeSettings
from services.chassis.executor.child import Context, Stopping
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.json_lines import write_lines
from services.feedback.judges.judge import Tick
from services.feedback.judges.registered import FetchedJudge, fetched_judge


def written(store: ArtifactStore, report: BaseModel, files: Mapping[str, Iterable[BaseModel]]) -> ArtifactRef:
    """Store an artifact with these JSON lines files and `report.json`."""
    with TemporaryDirectory(prefix="feedback-") as folder:
        for name, lines in files.items():
            write_lines(Path(folder) / name, lines)
        (Path(folder) / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return store.put(Path(folder))


def registered(context: Context, judge: JudgeSettings) -> FetchedJudge | None:
    """Return the registered reward model that the judge's settings name; None if they name none."""
    return fetched_judge(registered_judge(judge, context.task.results), context.store, context.task.cache)


def ticking(context: Context, unit: str) -> Tick:
    """A callback that reports progress, and raises Stopping when the run must end."""

    def tick(done: int, of: int) -> None:
        if context.stopping:
            raise Stopping
        context.progress(done, of, unit)

    return tick
