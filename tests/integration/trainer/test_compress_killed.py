"""A compression that is killed leaves no artifact, and the next process makes the whole one."""

import os
import signal
from pathlib import Path
from typing import Any

from schemas.steps import CompressSettings
from services.chassis.executor.child import Context
from services.chassis.executor.messages import ChildTask
from services.trainer.steps.compress import compress
from tests.compression import made_adapter
from tests.forked import FORKS
from tests.trainer import Reports, context_of

_WEIGHTS_ARE_WRITTEN = 2
"""The stage behind which the result is measured and stored."""


def dying(task: str) -> None:
    """Run the step, and kill this process between the weights and the artifact."""
    context = Context(ChildTask.model_validate_json(task), Reports())

    def progress(done: int, _of: int, unit: str, **_more: Any) -> None:
        if (done, unit) == (_WEIGHTS_ARE_WRITTEN, "stages"):
            os.kill(os.getpid(), signal.SIGKILL)

    context.progress = progress  # type: ignore[assignment, method-assign]
    compress(context)


def test_what_was_killed_leaves_nothing_and_is_made_whole_afterwards(tmp_path: Path, base: Path) -> None:
    inputs = {"adapter": made_adapter(tmp_path, base)}
    settings = CompressSettings(base_model=str(base))
    before = sorted((tmp_path / "artifacts").rglob("*"))
    killed = FORKS.Process(target=dying, args=(context_of(tmp_path, settings, inputs).task.model_dump_json(),))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert sorted((tmp_path / "artifacts").rglob("*")) == before
    made = compress(context_of(tmp_path, settings, inputs)).outputs["model"]
    assert (Path(made.uri) / "model.safetensors").stat().st_size > 0
