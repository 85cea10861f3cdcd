"""Lists the generated files with their content; the same contract always gives the same bytes."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from schemas.generate.async_api import async_api
from schemas.generate.json_schema import event_schema
from schemas.generate.page import contract_page
from schemas.topics import EVENT_TYPES

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
FOLDER = Path("schemas/generated")
SCHEMAS = FOLDER / "events"
ASYNC_API = FOLDER / "asyncapi.json"
PAGE = Path("docs/contract.md")


def generated() -> dict[Path, str]:
    """Return the text of every generated file by its path relative to the repository's root."""
    version = tomllib.loads(_PROJECT.read_text())["project"]["version"]
    schemas = {SCHEMAS / f"{name}.json": _json(event_schema(model)) for name, model in EVENT_TYPES.items()}
    return {**schemas, ASYNC_API: _json(async_api(version)), PAGE: contract_page()}


def stale(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Return the sorted paths under `root` that are missing, differ, or are left over from a removed event."""
    differing = {path for path, text in files.items() if not _holds(root / path, text)}
    return sorted(differing | _left_over(root, files))


def write(root: Path, files: Mapping[Path, str]) -> None:
    """Bring the files under `root` up to date and remove those left over."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode())
    for path in _left_over(root, files):
        (root / path).unlink()


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _left_over(root: Path, files: Mapping[Path, str]) -> set[Path]:
    present = (path.relative_to(root) for path in (root / FOLDER).rglob("*") if path.is_file())
    return {path for path in present if path not in files}


def _json(document: dict[str, JsonValue]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
