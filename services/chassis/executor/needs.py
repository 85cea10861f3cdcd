"""Says what an attempt needs of the machine that runs it: by the estimate of an earlier step, else by its kind."""

from typing import NamedTuple

from schemas.jobs import StepNeed, StepRequested
from schemas.steps import CompareSettings, LabelSettings, ScoreSettings

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
"""A step that reads data or files of models. It counts no core, so that a new job's data are checked while another one trains."""
_COMPUTES = Need(UNKNOWN, UNKNOWN, UNKNOWN)
"""A step that runs a model of unknown size."""
_MB = 2**20
_MOST_MB = 2**31 - 1
"""The largest number of the columns that store a need."""


def need_of(request: StepRequested) -> Need:
    """Return the need of an attempt: the one that it was requested with; else by its kind, and for feedback by its judge, since only a
    local judge runs a model here."""
    if request.need is not None:
        return _estimated(request.need, request.memory_failures)
    match request.kind, request.settings:
        case "register" | "resolve", _:
            return _WAITS
        case "prepare" | "import", _:
            return _READS
        case _, (
            LabelSettings(feedback=feedback) | ScoreSettings(feedback=feedback) | CompareSettings(feedback=feedback)
        ) if feedback.judge.kind != "local":
            return _WAITS
    return _COMPUTES


def _estimated(need: StepNeed, memory_failures: int) -> Need:
    """Return an estimate in whole units. After each attempt that ran out of memory it counts twice, because it was too low.

    On a GPU the step computes with one core. On a processor the number of cores is not part of an estimate: it uses those that it gets.
    """
    cores = UNKNOWN if need.device_bytes is None else 1
    device = UNKNOWN if need.device_bytes is None else _whole_mb(need.device_bytes, memory_failures)
    return Need(cores, _whole_mb(need.memory_bytes, memory_failures), device)


def _whole_mb(size: int, memory_failures: int) -> int:
    return min(_MOST_MB, -(-size // _MB) << min(memory_failures, 31))
