"""A request as a person writes it, in JSON or YAML, becomes what travels on the wire, and nothing else."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from schemas.ids import new_id


class NoRequest(ValueError):
    """The text is no JSON and no YAML object."""


class _JsonTypes(yaml.SafeLoader):
    """YAML with the types of JSON: a time stays the text that was written."""


_JsonTypes.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_request(file: Path) -> dict[str, Any]:
    """The request in `file`, `-` for standard input; one without `job_id` gets one. Raises NoRequest, OSError."""
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    request = _parse(text)
    if not isinstance(request, dict):
        raise NoRequest(
            f"{file}: a request is an object with fields such as base_model and dataset; docs/contract.md has all, README.md an example"
        )
    try:
        wire: dict[str, Any] = json.loads(json.dumps(request, allow_nan=False))
    except (ValueError, TypeError, RecursionError) as error:
        raise NoRequest(f"{file}: the request holds what JSON cannot: {error}") from None
    return {"job_id": new_id(), **wire}


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.load(text, _JsonTypes)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise NoRequest(f"the request is neither JSON nor YAML: {error}") from None
