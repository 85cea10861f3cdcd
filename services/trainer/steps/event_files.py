"""Writes a training's measurements as TensorBoard event files while it runs, if the package tensorboard is installed."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.chassis.executor.child import Context

_log = logging.getLogger(__name__)
_FLUSH_SECONDS = 10


@contextmanager
def event_files(context: Context) -> Iterator[None]:
    """Within this block each measured step is written below the folder of the step's logs.

    A run that resumes hides what an earlier one wrote beyond its checkpoint. A failure to write is logged once and ends the
    writing, not the training.
    """
    folder = context.task.event_files
    writer = _Writer(folder) if folder is not None and _installed() else None
    if writer is None:
        yield
        return
    context.observe(writer.write)
    try:
        yield
    finally:
        writer.close()


def _installed() -> bool:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


class _Writer:
    """One run's event file, which is begun with the first measurement."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._summary: Any = None
        self._failed = False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values that were measured at an optimiser step."""
        if self._failed:
            return
        try:
            if self._summary is None:
                from torch.utils.tensorboard import SummaryWriter

                self._summary = SummaryWriter(str(self._folder), purge_step=step, flush_secs=_FLUSH_SECONDS)
            for name, value in values.items():
                if name != "step":
                    self._summary.add_scalar(name, value, step)
        except Exception:
            self._failed = True
            _log.exception("TensorBoard event files cannot be written; the training goes on without them")

    def close(self) -> None:
        """Write what is still in memory."""
        if self._summary is None or self._failed:
            return
        try:
            self._summary.close()
        except Exception:
            _log.exception("the end of the TensorBoard event file could not be written")
