"""Metrics are created in files named metrics.py only, one for each package, and each is explained there."""

import ast
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[3]
_READERS = {"CONTENT_TYPE_LATEST", "generate_latest"}
"""What shows metrics and creates none."""


def _sources() -> Iterator[Path]:
    for folder in ("schemas", "services", "examples"):
        yield from sorted((_ROOT / folder).rglob("*.py"))


def _makers(tree: ast.Module) -> set[str]:
    """The names through which a module can create metrics."""
    made = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "prometheus_client":
            made |= {alias.asname or alias.name for alias in node.names if alias.name not in _READERS}
        if isinstance(node, ast.Import):
            made |= {alias.asname or alias.name for alias in node.names if alias.name.startswith("prometheus_client")}
    return made


def test_metrics_are_created_only_in_files_named_metrics() -> None:
    makers = {path for path in _sources() if _makers(ast.parse(path.read_text()))}
    assert makers
    assert [str(path) for path in sorted(makers) if path.name != "metrics.py"] == []


def test_each_metric_is_explained_where_it_is_created_with_all_its_labels() -> None:
    for path in _sources():
        if path.name != "metrics.py" or not (
            makers := _makers(tree := ast.parse(path.read_text())) - {"CollectorRegistry"}
        ):
            continue
        about = ast.get_docstring(tree) or ""
        for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
                continue
            if not (isinstance(node.value.func, ast.Name) and node.value.func.id in makers):
                continue
            where = f"{path}: {ast.unparse(node.targets[0])}"
            assert isinstance(after, ast.Expr), f"{where} is not explained"
            assert isinstance(after.value, ast.Constant), f"{where} is not explained"
            labels = [ast.literal_eval(argument) for argument in node.value.args[2:3]] or [[]]
            for label in labels[0]:
                explained = label == "service" or f"`{label}`" in f"{after.value.value!r} {about}"
                assert explained, f"{where} does not explain its label {label}"
