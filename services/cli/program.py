"""How this program is called, so that a command in a message can be copied and runs as it stands there."""

import re
import shlex
import shutil
import sys
from pathlib import Path

NAME = "neuroweaver"
COMMANDS = (
    "up", "down", "status", "serve", "migrate", "retention", "doctor", "demo", "topics", "jobs", "queue", "datasets", "models", "deployments", "projections",
    "dlq", "partitions", "audit", "evidence", "bridge",
)  # fmt: skip
_MODULE = "services.cli.main"
_SAID = re.compile(rf"(?<![\w./-]){NAME}(?= (?:{'|'.join(COMMANDS)})\b)")
_ROUTES = (
    (re.compile(r"GET /api/v1/training lists"), f"`{NAME} jobs list` lists"),
    (re.compile(r"GET /api/v1/training/(\S+) shows"), rf"`{NAME} jobs show \1` shows"),
    (re.compile(r"POST /api/v1/training/(\S+?)/retry continues"), rf"`{NAME} jobs retry \1` continues"),
    (re.compile(r"GET /api/v1/models lists"), f"`{NAME} models list` lists"),
    (re.compile(r"GET /api/v1/deployments lists"), f"`{NAME} deployments list` lists"),
    (
        re.compile(r"GET /api/v1/models/(\S+)/aliases shows the ETag to send as If-Match"),
        rf"`{NAME} models aliases \1` shows the number for --sequence",
    ),
    (
        re.compile(
            r"no route \w+ /api/v1/training/(.+?)(?:/cancel|/events|/retry|/pause|/resume|/checkpoint|/priority)?; see /docs"
        ),
        rf"no job can be called '\1'; `{NAME} jobs list` lists those that were requested",
    ),
    (
        re.compile(r"no route \w+ /api/v1/models/(.+); see /docs"),
        rf"no model can be called '\1'; `{NAME} models list` lists those that are registered",
    ),
)
"""HTTP routes in the services' messages, and the command that does the same."""


def program() -> str:
    """Return the command as the user types it: its name if the shell finds this program by it, otherwise its path."""
    called = sys.argv[0]
    if called == NAME:
        return NAME
    script = Path(called) if Path(called).name == NAME else Path(sys.executable).with_name(NAME)
    if not script.exists():
        return shlex.join([sys.executable, "-m", _MODULE])
    found = shutil.which(NAME)
    if found is not None and Path(found).samefile(script):
        return NAME
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))


def as_typed(text: str) -> str:
    """Return `text` for this terminal: commands as they are called here, and commands instead of HTTP routes."""
    for route, command in _ROUTES:
        text = route.sub(command, text)
    return _SAID.sub(lambda _: program(), text) if NAME in text else text
