"""What a worker does with an error that is no outcome of its own: it logs and counts it, or makes it the fault of the attempt."""

from schemas.jobs import StepFault
from services.chassis.executor import metrics
from services.chassis.executor.runner import Failed
from services.chassis.executor.text import storable
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described, is_transient

_log = get_logger(__name__)
_MESSAGE_LIMIT = 4000


def note_error(service: str, what: str, error: BaseException) -> None:
    """Log an error that is retried; one that is not transient is logged with its traceback and counted."""
    if is_transient(error):
        _log.warning(what, error=described(error))
    else:
        metrics.ERRORS.labels(service).inc()
        _log.error(what, exc_info=error)


def unexpected(error: BaseException) -> Failed:
    """The outcome of an attempt that ended with `error`, which no runner means to raise."""
    return Failed(StepFault(cause="infrastructure", message=storable(described(error, _MESSAGE_LIMIT))))
