"""Checks whether a database is at this code's schema without Alembic, which costs a small service a tenth of its memory.

A revision describes itself by assignments of literals (as Alembic writes them), so they are parsed without running the
file.
"""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_SERVICES = Path(__file__).parents[2]
_NAME = "revision"
_PARENTS = ("down_revision", "depends_on")


def version_folders(service: str) -> list[Path]:
    """Return the folders with the revisions of a service's database: the chassis' and the service's."""
    return [_SERVICES / name / "migrations" / "versions" for name in ("chassis", service)]


def known(service: str) -> dict[str, set[str]]:
    """Return every revision of this code with its parents. Raises ValueError if a file states them in another form."""
    files = [file for folder in version_folders(service) for file in sorted(folder.glob("[!_]*.py"))]
    said = [_assigned(file) for file in files]
    return {name: {parent for key in _PARENTS for parent in one.get(key, ())} for one in said for name in one[_NAME]}


@cache
def _assigned(file: Path) -> dict[str, tuple[str, ...]]:
    """Return the revision's values of the variables that Alembic reads."""
    found: dict[str, tuple[str, ...]] = {}
    for line in ast.parse(file.read_text(encoding="utf-8"), file.name).body:
        match line:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if name in (_NAME, *_PARENTS):
                literal = ast.literal_eval(value)
                found[name] = (literal,) if isinstance(literal, str) else tuple(literal or ())
    if len(found.get(_NAME, ())) != 1:
        raise ValueError(f"{file}: a revision of Alembic assigns its name to `{_NAME}`, once and as a literal")
    return found


def missing(service: str, applied: Iterable[str]) -> set[str]:
    """Revisions of this code that a database at `applied` lacks."""
    graph = known(service)
    seen: set[str] = set()
    open_ = [revision for revision in applied if revision in graph]
    while open_:
        revision = open_.pop()
        if revision not in seen:
            seen.add(revision)
            open_ += graph[revision]
    return graph.keys() - seen


def unknown(service: str, applied: Iterable[str]) -> set[str]:
    """Revisions that this code does not know: the database is newer."""
    return set(applied) - known(service).keys()
