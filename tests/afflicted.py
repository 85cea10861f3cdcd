"""The trainer's child as `python -m tests.afflicted`, whose training hangs at a step if the environment says so."""

import os
import threading
from pathlib import Path
from typing import Any

from services.trainer import child
from services.trainer.engine.supervision import Supervision

HANGS_AFTER, HANGS = "HANGS_AFTER", "HANGS"
"""The number of steps that it does, and the file that says that it hangs."""


def hang_after(steps: int, said: Path) -> None:
    """Let a training wait for ever once it has done some steps."""
    begin = Supervision.on_step_begin

    def on_step_begin(self: Any, *given: Any, **more: Any) -> None:
        if len(self._run.curve) == steps:
            said.touch()
            a_collator_that_never_returns()
        begin(self, *given, **more)

    Supervision.on_step_begin = on_step_begin  # type: ignore[method-assign]


def a_collator_that_never_returns() -> None:
    """Wait for ever."""
    threading.Event().wait()


if __name__ == "__main__":
    if steps := os.environ.get(HANGS_AFTER):
        hang_after(int(steps), Path(os.environ[HANGS]))
    child.run({"train": child.train})
