"""A known failure ends in one sentence and an exit code that means something; only a fault of ours shows a traceback."""

import socket
from collections.abc import Iterator

import asyncpg
import httpx2
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings
from pydantic_settings.exceptions import SettingsError

from services.audit.manifest import Unusable
from services.audit.parquet import NoPyarrow
from services.chassis.kafka.metadata import NoIdentity
from services.chassis.kafka.reach import Unreachable
from services.chassis.kafka.topics import TopicFailure
from services.chassis.kernel.log import LogReadStalled, UnknownTopic
from services.chassis.kernel.transaction.batch import RecordFailure
from services.chassis.migrations.migrate import cause
from services.chassis.postgres.options import BadUrl
from services.chassis.postgres.requirements import DatabaseRefused
from services.chassis.process.transient import described, is_transient
from services.chassis.replay.checks import ReplayRefused as ReplayRefused
from services.chassis.replay.restore import NotRestored
from services.chassis.replay.runs import Busy
from services.cli.edge import RequestRefused
from services.cli.exits import Exit
from services.cli.listening import PortTaken
from services.cli.stack import StackFailure
from services.devstack.jars import JarFailure
from services.devstack.java import NoJava
from services.devstack.process import ServerFailure
from services.devstack.state import HomeUnusable, StackBusy, UnreadableState

_OWN = (
    Busy,
    ReplayRefused,
    NotRestored,
    RecordFailure,
    UnknownTopic,
    LogReadStalled,
    NoIdentity,
    TopicFailure,
    DatabaseRefused,
    BadUrl,
    JarFailure,
    NoJava,
    ServerFailure,
    StackBusy,
    HomeUnusable,
    UnreadableState,
    StackFailure,
    PortTaken,
    Unusable,
    NoPyarrow,
)
_REFUSED = ("28", "3D", "42501")
"""SQLSTATEs of wrong credentials, unknown databases and missing privileges."""
_NOT_MIGRATED = ("42P01", "42703", "3F000")
"""SQLSTATEs of a missing table, column or schema."""
_SECRETS = ("password", "url")
_NO_ANSWER = (ConnectionError, TimeoutError, socket.gaierror)


def explain(error: Exception) -> tuple[Exit, str] | None:
    """Return an exit code and a sentence for the user; None for an unforeseen error."""
    if isinstance(error, ValidationError) and error.title.endswith("Settings"):
        return Exit.USAGE, "; ".join(_of_setting(item, error.title) for item in error.errors())
    if isinstance(error, SettingsError):
        return Exit.USAGE, _of_json(str(error))
    if isinstance(error, RequestRefused):
        return error.exit, str(error)
    if isinstance(error, _OWN):
        return Exit.FAILED, str(error)
    if isinstance(error, httpx2.TransportError):
        return Exit.UNREACHABLE, f"{error.request.url} does not answer ({described(error)}); see `neuroweaver status`"
    if isinstance(error, OSError) and not isinstance(error, _NO_ANSWER):
        return Exit.FAILED, str(error)
    if isinstance(error, Unreachable):
        return Exit.UNREACHABLE, str(error)
    if isinstance(refused := cause(error), asyncpg.PostgresError):
        if (refused.sqlstate or "").startswith(_REFUSED):
            return Exit.FAILED, f"the database refuses: {described(refused)}; see `neuroweaver doctor`"
        if refused.sqlstate in _NOT_MIGRATED:
            return (
                Exit.FAILED,
                f"the database lacks what this version needs: {described(refused)}; run `neuroweaver migrate`",
            )
    if is_transient(error):
        remedy = "see `neuroweaver doctor`"
        return Exit.UNREACHABLE, f"the broker or the database does not answer: {described(error)}; {remedy}"
    return None


def _of_setting(fault: ErrorDetails, settings: str) -> str:
    """Describe the fault of one setting, or of several together. A value that may contain a secret is not repeated."""
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0])
    value = "" if name.endswith(_SECRETS) else f"={fault['input']}"
    prefix = next((_prefix(one) for one in _settings() if one.__name__ == settings), "NEUROWEAVER_")
    part = "".join(f" {step}" for step in fault["loc"][1:])
    return f"{prefix}{name.upper()}{part}{value}: {message}"


def _of_json(said: str) -> str:
    """Describe a setting that should be JSON and is not; its value is not repeated."""
    name = said.partition('"')[2].partition('"')[0]
    prefix = next((_prefix(one) for one in _settings() if name in one.model_fields), "NEUROWEAVER_")
    return f"{prefix}{name.upper()}: it is not valid JSON; write lists as [...] and objects as {{...}}, with names in double quotes"


def _settings(base: type[BaseSettings] = BaseSettings) -> Iterator[type[BaseSettings]]:
    for found in base.__subclasses__():
        yield found
        yield from _settings(found)


def _prefix(settings: type[BaseSettings]) -> str:
    return str(settings.model_config.get("env_prefix") or "")
