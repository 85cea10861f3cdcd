"""Removes secrets from log lines, error texts, rows, events, HTTP responses, and what commands print.

The password of every URL is removed. The secrets that this process was given are known by value and are removed in every
form in which they are commonly written: as they are, percent-encoded, and escaped as in JSON and Python.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO
from urllib.parse import quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
_SHORTEST = 6
_OUR_WORDS = frozenset(
    (
        "database",
        "default",
        "development",
        "feedback",
        "neuroweaver",
        "orchestrator",
        "password",
        "postgres",
        "postgresql",
        "registry",
        "trainer",
    )
)
"""A shorter secret, or one that is a word of this project, is removed from URLs only: it would match ordinary text."""
JUDGE_KEYS = "NEUROWEAVER_JUDGE_KEY_"
"""Prefix of the variables that hold the keys of judges; a job may name no other variable."""
_NAMES = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "DATABRICKS_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MLFLOW_TRACKING_TOKEN",
    "RAY_AUTH_TOKEN",
)  # fmt: skip
_URLS = ("DATABASE_URL", "TRACKING_URI")
"""Ends of the names of variables that hold URLs, which may contain a password."""
_OPTIONS = r"(?:ssl)?password|passwd|secret|token|access_token|api_?key|x-amz-signature|x-amz-security-token|signature|sig"
_IN_TEXT = (
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:'\"<>]*:)[^\s'\"<>/?#]+(@)"), rf"\1{HIDDEN}\2"),
    (re.compile(r"\b(https?://)[^\s/?#@:'\"<>]+(@)", re.IGNORECASE), rf"\1{HIDDEN}\2"),
    (re.compile(rf"([?&](?:{_OPTIONS})=)[^&\s'\"<>]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b(Bearer )[A-Za-z0-9._~+/=-]{8,}"), rf"\1{HIDDEN}"),
)


class _Known:
    """The secrets of this process; there is one instance per process."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.pattern: re.Pattern[str] | None = None

    def add(self, secrets: Iterable[str | None]) -> None:
        new = {secret for secret in secrets if secret and len(secret) >= _SHORTEST and secret.lower() not in _OUR_WORDS}
        if new - self.secrets:
            self.secrets |= new
            forms = sorted({form for secret in self.secrets for form in forms_of(secret)}, key=len, reverse=True)
            self.pattern = re.compile("|".join(map(_pattern_of, forms)))


_known = _Known()


def hide(secrets: Iterable[str | None]) -> None:
    """Remove these secrets from every text that this process writes from now on. Called where settings are read."""
    _known.add(secrets)


def redacted(text: str) -> str:
    """`text` without passwords in URLs and without the known secrets."""
    if _known.pattern is not None:
        text = _known.pattern.sub(HIDDEN, text)
    if "://" in text or "=" in text or "Bearer " in text:
        for pattern, instead in _IN_TEXT:
            text = pattern.sub(instead, text)
    return text


def forms_of(secret: str) -> frozenset[str]:
    """Return all forms in which a secret may be written in a text."""
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    lower = {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in quoted}
    plain = {secret, *quoted, *lower}
    return frozenset({*plain, *(json.dumps(form)[1:-1] for form in plain), repr(secret)[1:-1]})


def _pattern_of(form: str) -> str:
    """Match a secret that is a plain word only as a whole word, since it may be part of others."""
    return rf"\b{form}\b" if form.isalpha() else re.escape(form)


def secrets_of(environment: Mapping[str, str]) -> Iterator[str]:
    """Find the secrets in a process's environment."""
    for name, value in environment.items():
        if name.endswith(_URLS):
            yield from secrets_in(value)
        elif name.endswith("PASSWORD") or name.startswith(JUDGE_KEYS) or name in _NAMES:
            yield value.strip()


def secrets_in(url: str) -> Iterator[str]:
    """Yield the password of a URL, decoded and as written there, and the secrets among its options."""
    account, at, _ = url.partition("://")[2].rpartition("@")
    _, colon, password = account.partition(":")
    if at and colon:
        yield from (password, unquote(password))
    try:
        options = urlsplit(url).query.split("&")
    except ValueError:
        return
    for name, _, value in (option.partition("=") for option in options):
        if "password" in name:
            yield from (value, unquote(value))


def redact_output() -> None:
    """Keep the secrets of the environment out of all output of this process from now on, whatever code writes it."""
    hide(secrets_of(os.environ))
    sys.stdout, sys.stderr = Redacting(sys.stdout), Redacting(sys.stderr)


class Redacting:
    """Wraps a stream and removes secrets from what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
