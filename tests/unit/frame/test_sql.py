"""Where SQL may stand: each folder's `statements.py` has what its files run, every statement named and explained."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_CODE = [path for folder in ("services", "examples") for path in sorted((_ROOT / folder).rglob("*.py"))]
_STATEMENTS = [path for path in _CODE if path.name == "statements.py"]
_DEFINITIONS = {
    "services/chassis/executor/schema.py",
    "services/chassis/migrations/own_ids.py",
    "services/chassis/postgres/summaries.py",
}
"""Parts of table definitions and of migrations, which are SQL as well."""
_SQL = re.compile(
    r"""^\s*(?:ANALYZE|LISTEN|NOTIFY|SHOW|TRUNCATE|UNLISTEN|VACUUM)\b(?!\s*[.,:;])
    | \b(?:SELECT|INSERT\sINTO|DELETE\sFROM|UPDATE\s\w+\s(?:AS\s\w+\s)?SET|LOCK\sTABLE|SET\sLOCAL|ON\sCONFLICT|ORDER\sBY|GROUP\sBY)\b
    | \b(?:FOR\sUPDATE|FOR\sSHARE|SKIP\sLOCKED|RETURNING|WHERE|IS\sNULL|IS\sNOT\sNULL|LEFT\sJOIN|UNION\sALL)\b
    | \b(?:CREATE|ALTER|DROP|COMMENT\sON|GRANT|REVOKE)\s(?:TABLE|SCHEMA|DATABASE|INDEX|TYPE|FUNCTION|ROLE|COLUMN)\b
    | \bCAST\(|\bcoalesce\(|\bunnest\(|\bpg_\w+\(|\bset_config\(|\s=\s(?::[a-z]\w*|\$\d|\{\})(?:\sAND|$)""",
    re.VERBOSE,
)
"""A statement or a part of one, but for what begins and ends a transaction."""
_BUILDERS = {"text", "select", "insert", "update", "delete", "literal_column"}


def _may_have_sql(path: Path) -> bool:
    return (
        path.name in ("statements.py", "tables.py")
        or "versions" in path.parts
        or path.relative_to(_ROOT).as_posix() in _DEFINITIONS
    )


def _explanations(tree: ast.AST) -> set[int]:
    """Ids of the texts that stand alone: docstrings."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def sql_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and beginning of each text that is SQL, and of each import of what builds statements."""
    explanations = _explanations(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(said)) if id(node) not in explanations and _SQL.search(said):
                yield node.lineno, " ".join(said.split())[:60]
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "sqlalchemy":
                yield from ((node.lineno, name.name) for name in names if name.name in _BUILDERS)
            case ast.Attribute(value=ast.Name(id="sa" | "sqlalchemy"), attr=name) if name in _BUILDERS:
                yield node.lineno, name


@pytest.mark.parametrize(
    "said",
    [
        "'SELECT 1'",
        "f'UPDATE {table} SET x = 1 WHERE key = :key'",
        "'UPDATE work SET lease = NULL'",
        "f'ANALYZE {table}'",
        "f'DROP SCHEMA {name} CASCADE'",
        "'SHOW data_directory'",
        "'key = :key'",
        "'r.model = {}'",
        "'created_at IS NOT NULL'",
        "f'LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE'",
    ],
)
def test_the_search_finds_a_statement_and_a_part_of_one(said: str) -> None:
    assert list(sql_in(ast.parse(f"x = {said}")))


@pytest.mark.parametrize("said", ["'DELETE'", "'see `neuroweaver dlq list`; retry or discard'", "'it begins at {at}'"])
def test_the_search_leaves_other_texts(said: str) -> None:
    assert not list(sql_in(ast.parse(f"x = {said}")))


def test_sql_stands_only_in_statements_files_tables_and_migrations() -> None:
    found = [
        f"{path.relative_to(_ROOT)}:{line}: {said}"
        for path in _CODE
        if not _may_have_sql(path)
        for line, said in sql_in(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "SQL stands outside of a statements.py:\n" + "\n".join(found)


@pytest.mark.parametrize("path", _STATEMENTS, ids=lambda path: path.parent.relative_to(_ROOT).as_posix())
def test_every_statement_has_a_name_and_an_explanation(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    silent = []
    for node, following in zip(body, [*body[1:], None], strict=True):
        match node:
            case ast.FunctionDef(name=name) if not name.startswith("_") and ast.get_docstring(node) is None:
                silent.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]) if not name.startswith("_"):
                if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
                    silent.append(name)
    assert not silent, f"{path.relative_to(_ROOT)} does not explain {', '.join(silent)}"


def test_a_statement_that_nobody_runs_is_gone() -> None:
    elsewhere = {path: path.read_text(encoding="utf-8") for path in _CODE if path not in _STATEMENTS}
    unused = []
    for path in _STATEMENTS:
        own = path.read_text(encoding="utf-8")
        for node in ast.parse(own).body:
            match node:
                case ast.FunctionDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                    pass
                case _:
                    continue
            used = re.compile(rf"\b{name}\b")
            if len(used.findall(own)) < 2 and not any(used.search(code) for code in elsewhere.values()):
                unused.append(f"{path.relative_to(_ROOT)}: {name}")
    assert not unused
