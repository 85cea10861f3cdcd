"""Configures JSON logs with event, job and trace ids through structlog, also for the records of libraries."""

import logging
import sys
from typing import Annotated, TextIO

import structlog
from pydantic import AfterValidator
from structlog.typing import Processor

from services.chassis.process.redaction import redacted

_LOGGED_ELSEWHERE = "OffsetCommit failed"
"""aiokafka logs these for each partition; the consumer logs them once."""
_REPEATS_SECONDS = 10.0
_REMEMBERED = 1000
_REPEATING = ("aiokafka", "asyncio", "uvicorn")
_QUIET = ("aiokafka", "faststream", "alembic", "uvicorn.access", "asyncio", "httpx2")


def _known(level: str) -> str:
    name = level.strip().upper()
    if name not in logging.getLevelNamesMapping():
        raise ValueError("choose DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return name


Level = Annotated[str, AfterValidator(_known)]
"""The lowest level that is logged, in capitals."""


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error), one JSON object a line."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        _WithoutSecrets(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    handler.addFilter(_RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("aiokafka.consumer.group_coordinator").addFilter(_not_logged_elsewhere)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger("faststream").setLevel(logging.ERROR)  # it warns of what is intended, such as topics not created


class _WithoutSecrets(structlog.stdlib.ProcessorFormatter):
    """Removes known secrets from the whole line, including records of libraries and stack traces."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class _RepeatFilter(logging.Filter):
    """Passes a repeated message only once in a while. While a broker is away aiokafka logs each of many attempts a second;
    asyncio does so for connections that it cannot accept, uvicorn for requests that are not HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_REPEATING):
            return True
        text = record.getMessage()
        if record.created - self._logged_at.get(text, float("-inf")) < _REPEATS_SECONDS:
            return False
        if len(self._logged_at) >= _REMEMBERED:
            self._logged_at.clear()
        self._logged_at[text] = record.created
        return True


def _not_logged_elsewhere(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LOGGED_ELSEWHERE)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger that takes an event text and key-value pairs."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
