"""Says what an attempt needs of the machine that runs it; the one place that a better estimate has to change."""

from typing import NamedTuple

from schemas.jobs import StepRequested
from schemas.steps import LabelSettings, ScoreSettings

UNKNOWN = None
"""The need is not known: a machine counts its setting for such a step, which by default is the whole machine."""


class Need(NamedTuple):
    """What an attempt uses while it runs, in whole units. Null: unknown."""

    cores: int | None
    """Processor cores that it keeps busy; 0 for one that mostly waits."""
    memory_mb: int | None
    """Main memory."""
    device_mb: int | None
    """Memory of one GPU, on a machine that has GPUs; 0 for a step that computes on none."""


NOTHING = Need(0, 0, 0)
_WAITS = Need(0, 256, 0)
"""A step that waits for a service or writes rows."""
_READS = Need(0, 2048, 0)
"""A step that reads and tokenises data. It counts no core, so that a new job's data are checked while another one trains."""
_COMPUTES = Need(UNKNOWN, UNKNOWN, UNKNOWN)
"""A step that runs a model of unknown size."""


def need_of(request: StepRequested) -> Need:
    """Return the need of an attempt: by its kind, and for feedback by its judge, since only a local judge runs a model here."""
    match request.kind, request.settings:
        case "register", _:
            return _WAITS
        case "prepare", _:
            return _READS
        case _, LabelSettings(feedback=feedback) | ScoreSettings(feedback=feedback) if feedback.judge.kind != "local":
            return _WAITS
    return _COMPUTES
