"""Selects a judge's API key: from a variable reserved for judges, and only for a host that the operator has listed."""

import re
from collections.abc import Mapping

import httpx2

from schemas.reasons import Reason, shown
from schemas.recipes.feedback import JudgeSettings
from services.chassis.executor.child import UserFault
from services.chassis.process.redaction import JUDGE_KEYS
from services.chassis.storage.sources.allowed import AllowedSources, Refusal, key_refusal
from services.chassis.storage.sources.reaching import SourceRefused, port_of, url_of

_NAME = re.compile(rf"{JUDGE_KEYS}[A-Za-z0-9_]{{1,100}}")


def key_for(settings: JudgeSettings, allowed: AllowedSources, environment: Mapping[str, str]) -> str | None:
    """The key for `settings.endpoint`, or None for no key.

    Raises UserFault. Only variables reserved for judges are read.
    """
    url = endpoint_url(settings, allowed)
    variable = settings.api_key_env
    if variable is None:
        return None
    if not _NAME.fullmatch(variable):
        raise judge_fault(
            "api_key_env",
            variable,
            f"a job may name only variables that begin with {JUDGE_KEYS}",
            f"have the operator put the key into {JUDGE_KEYS}<NAME> of the feedback service, and name that",
        )
    if refusal := key_refusal(url.host, port_of(url), allowed):
        raise judge_fault("api_key_env", variable, *refusal)
    key = environment.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise judge_fault(
            "api_key_env",
            variable,
            "the feedback service has no such environment variable, or its value cannot be a key",
            "set it for the feedback service, or name another one",
        )
    return key


def endpoint_url(settings: JudgeSettings, allowed: AllowedSources) -> httpx2.URL:
    """The base URL of the judge's endpoint. Raises UserFault."""
    try:
        return url_of(str(settings.endpoint), allowed)
    except SourceRefused as refused:
        raise endpoint_fault(settings, refused.refusal) from None


def endpoint_fault(settings: JudgeSettings, refusal: Refusal) -> UserFault:
    """Make the fault for an endpoint that jobs may not name."""
    return judge_fault("endpoint", str(settings.endpoint), *refusal)


def judge_fault(field: str, value: str | None, message: str, remedy: str) -> UserFault:
    """Make a fault of one of the judge's settings."""
    given = None if value is None else shown(value)
    return UserFault(Reason(field=f"feedback.judge.{field}", value=given, message=message, remedy=remedy))
