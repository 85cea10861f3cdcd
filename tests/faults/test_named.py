"""What the documents say is tested is: every scenario has its row and its section, and every test that they name exists."""

import re
from pathlib import Path

import pytest

from tests.faults.member import POINTS
from tests.faults.scenarios import FULL_DISK, SCENARIOS
from tests.faults.soak import EXECUTOR, MEMBERSHIP

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
KILLED = {f"SIGKILL {point}" for point in POINTS}


def said(page: str) -> str:
    """A page, with its lines as one."""
    return re.sub(r"\s+", " ", (DOCS / page).read_text())


@pytest.mark.parametrize("name", [*SCENARIOS, FULL_DISK])
def test_a_scenario_has_its_row_of_figures(name: str) -> None:
    assert re.search(rf"\| {re.escape(name)} \| \d+ \| [\d,]+ \|( 0 \|)+ [\d.]+ \|", said("reliability.md"))


@pytest.mark.parametrize("name", [MEMBERSHIP, EXECUTOR])
def test_what_is_measured_apart_has_its_paragraph(name: str) -> None:
    assert f"*{name[0].upper()}{name[1:]}*" in said("reliability.md")


@pytest.mark.parametrize("name", [*(name for name in SCENARIOS if name not in KILLED), FULL_DISK])
def test_a_scenario_shows_a_promise(name: str) -> None:
    assert f"*{name}*" in said("guarantees.md")


@pytest.mark.parametrize("page", ["guarantees.md", "reliability.md"])
def test_a_test_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"`((?:tests/[\w/]*/)?test_\w+\.py)`", said(page)))
    assert named
    assert {one for one in named if not any((ROOT / "tests").rglob(one.removeprefix("tests/")))} == set()
