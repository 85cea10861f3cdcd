"""Why: whether a database is at the schema of this code, told without Alembic, which costs a light service a tenth of its memory."""

import re
from collections.abc import Iterable
from pathlib import Path

_SERVICES = Path(__file__).parent.parent
_REVISION = re.compile(r'^revision(?:: str)? = "(\w+)"$', re.MULTILINE)
_PARENTS = re.compile(r'^(?:down_revision|depends_on)(?:: [^=]+)? = "(\w+)"$', re.MULTILINE)


def version_folders(service: str) -> list[Path]:
    """Where the revisions of a service's database lie: the chassis' own and the service's."""
    return [_SERVICES / name / "migrations" / "versions" for name in ("chassis", service)]


def known(service: str) -> dict[str, set[str]]:
    """Every revision of this code with those that it builds on."""
    texts = [path.read_text() for folder in version_folders(service) for path in sorted(folder.glob("*.py"))]
    return {found[1]: set(_PARENTS.findall(text)) for text in texts if (found := _REVISION.search(text))}


def missing(service: str, applied: Iterable[str]) -> set[str]:
    """Revisions of this code that a database at `applied` has not seen."""
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
