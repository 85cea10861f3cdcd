"""A few bad rows of many are left out, counted by kind with examples; more of them refuse the data set with every kind."""

from typing import Any

import pytest

from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.trainer.data.bad_rows import BadRows
from services.trainer.data.columns import RowFault

EMPTY = RowFault("dataset.columns.prompt", "column 'prompt' is empty", "fill it in")
NULL = RowFault("dataset.columns.completion", "column 'completion' contains null", "fill it in")


def bad(number: int, fault: RowFault = EMPTY, **settings: Any) -> BadRows:
    found = BadRows(DatasetSettings.model_validate({"reference": "x", **settings}))
    for row in range(1, number + 1):
        found.note(f"line {row}", fault)
    return found


@pytest.mark.parametrize(
    ("number", "rows", "settings"),
    [
        (1, 11, {}),
        (1, 150, {}),
        (10, 1000, {}),
        (5, 10, {"bad_rows_limit": 0.5}),
        (0, 5, {"on_bad_row": "refuse"}),
    ],
)  # fmt: skip
def test_few_are_left_out(number: int, rows: int, settings: dict[str, Any]) -> None:
    bad(number, **settings).refuse_too_many(rows)


@pytest.mark.parametrize(
    ("number", "rows", "settings"),
    [
        (1, 10, {}),
        (2, 150, {}),
        (11, 1000, {}),
        (1, 1000, {"on_bad_row": "refuse"}),
        (1, 1000, {"bad_rows_limit": 0}),
    ],
)
def test_many_refuse_the_data_set(number: int, rows: int, settings: dict[str, Any]) -> None:
    with pytest.raises(UserFault, match="column 'prompt' is empty"):
        bad(number, **settings).refuse_too_many(rows)


def test_a_refusal_tells_every_kind_and_how_many_would_be_left_out() -> None:
    found = bad(5)
    found.note("line 9", NULL)
    with pytest.raises(UserFault) as raised:
        found.refuse_too_many(100)
    first, second, limit = raised.value.reasons
    assert (first.value, second.value) == ("line 1, line 2, line 3 and 2 more", "line 9")
    assert limit.message == "6 of 100 rows are bad, and at most 1 are left out"


def test_what_is_left_out_is_said_by_kind_with_examples() -> None:
    found = bad(4)
    found.note("line 9", NULL)
    assert found.notes() == [
        "4 rows are left out: column 'prompt' is empty (line 1, line 2, line 3 and 1 more)",
        "1 row is left out: column 'completion' contains null (line 9)",
    ]
