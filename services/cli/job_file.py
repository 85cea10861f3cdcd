"""A request as a person writes it, in JSON or YAML, becomes what travels on the wire, and nothing else."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from schemas.ids import new_id


class NoRequest(ValueError):
    """The file cannot be read, or is neither a JSON nor a YAML object."""


class _JsonTypes(yaml.SafeLoader):
    """A YAML loader with the types of JSON: a time stays the text as written."""


_JsonTypes.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_request(file: Path) -> dict[str, Any]:
    """Return the request in `file`, or of standard input for `-`, with a new `job_id` if it has none.

    Raises NoRequest.
    """
    must = (
        "a request must be an object with fields such as base_model and dataset; docs/contract.md lists them, README.md has "
        "an example"
    )
    return {"job_id": new_id(), **read_object(file, must)}


def read_object(file: Path, must: str) -> dict[str, Any]:
    """Return the object in `file`, or of standard input for `-`. Raises NoRequest; `must` says what the object is, if there is none."""
    request = _parse(_text(file))
    if not isinstance(request, dict):
        raise NoRequest(f"{file}: {must}")
    try:
        wire: dict[str, Any] = json.loads(json.dumps(request, allow_nan=False))
    except (ValueError, TypeError, RecursionError) as error:
        raise NoRequest(f"{file}: the request contains a value that JSON cannot represent: {error}") from None
    return wire


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise NoRequest(f"{file}: {why}; name a file with the request in JSON or YAML") from None
    except UnicodeDecodeError:
        raise NoRequest(f"{file}: not a text in UTF-8; save the request as UTF-8") from None


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.load(text, _JsonTypes)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise NoRequest(f"the request is neither JSON nor YAML: {error}") from None
