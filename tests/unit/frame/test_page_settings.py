"""The pages that people read name only settings and metrics that exist in this commit."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from schemas.steps import SERVICES
from services.chassis.storage.retention.policy import RetentionSettings

_ROOT = Path(__file__).parents[3]
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md"), *_ROOT.glob("examples/**/*.md")])
_VARIABLE = re.compile(r"\bNEUROWEAVER_[A-Z]+(?:_[A-Z]+)*(?![A-Z_<*])")
_RETENTION = re.compile(r"`(?!NEUROWEAVER_)([A-Z_]+_(?:DAYS|MB|GB|COUNT|SECONDS))`")
_METRIC = re.compile(r"`(neuroweaver_[a-z_]+)(?:\{[^`]*\})?`")
_DATABASES = {f"neuroweaver_{service}" for service in (*SERVICES, "tally")}


def name_of(page: Path) -> str:
    return str(page.relative_to(_ROOT))


def settings(base: type[BaseSettings] = BaseSettings) -> Iterator[type[BaseSettings]]:
    """Every class of settings in this project."""
    for found in base.__subclasses__():
        if found.__module__.startswith("services."):
            yield found
        yield from settings(found)


def variable(of: type[BaseSettings], field: str) -> str:
    return f"{of.model_config.get('env_prefix', '')}{field}".upper()


@pytest.fixture(scope="module")
def variables() -> set[str]:
    for path in sorted(_ROOT.glob("services/**/settings.py")):
        importlib.import_module(".".join(path.relative_to(_ROOT).with_suffix("").parts))
    return {variable(found, field) for found in settings() for field in found.model_fields}


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    code = "\n".join(path.read_text() for path in _ROOT.glob("services/**/*.py"))
    return set(re.findall(r'"(neuroweaver_[a-z_]+)"', code))


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_every_setting_that_a_page_names_exists(page: Path, variables: set[str]) -> None:
    assert set(_VARIABLE.findall(page.read_text())) - variables == set()


def test_the_page_of_guarantees_names_every_setting_of_retention(variables: set[str]) -> None:
    named = {variable(RetentionSettings, field) for field in _RETENTION.findall((_ROOT / "docs/guarantees.md").read_text())}
    assert named == {variable(RetentionSettings, field) for field in RetentionSettings.model_fields}
    assert named <= variables


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_every_metric_that_a_page_names_exists(page: Path, metrics: set[str]) -> None:
    named = set(_METRIC.findall(page.read_text())) - _DATABASES
    assert {name for name in named if not {name, name.removesuffix("_total")} & metrics} == set()
