"""Two kinds of work never take one advisory lock, and every number stands in a list of locks."""

import re
from pathlib import Path

from services.chassis.postgres import locks as chassis
from services.registry import locks as registry

ROOT = Path(__file__).parents[3]


def numbers(module: object) -> list[int]:
    return [number for name, number in vars(module).items() if name.endswith("_LOCK")]


def test_no_two_locks_have_one_number() -> None:
    found = [*numbers(chassis), *numbers(registry)]
    assert len(found) == len(set(found)) == 9


def test_no_lock_has_its_number_elsewhere() -> None:
    lists = {Path(str(module.__file__)) for module in (chassis, registry)}
    having = {file for file in (ROOT / "services").rglob("*.py") if re.search(r"\b7_?253_?0\d\d\b", file.read_text())}
    assert having == lists
