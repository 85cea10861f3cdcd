"""Every filter of a list finds its rows by an index, newest first, whatever share of the table they are."""

import pytest
from sqlalchemy import Table

from services.orchestrator import statements as jobs
from services.orchestrator.tables import job
from services.registry import statements as versions
from services.registry.tables import registration

COLUMNS = {"name": "model", "state": "version_state"}
OF_A_COLUMN = [
    *((job, name, "requested_at") for name in jobs.FILTERS),
    *((registration, COLUMNS.get(name, name), "registered_at") for name in versions.FILTERS if name != "alias"),
]


@pytest.mark.parametrize(("table", "column", "time"), OF_A_COLUMN, ids=lambda it: getattr(it, "name", it))
def test_a_filter_has_an_index_in_the_order_of_the_list(table: Table, column: str, time: str) -> None:
    orders = [[str(part) for part in index.expressions] for index in table.indexes]
    assert [f"{table.name}.{column}", f"{table.name}.{time} DESC", f"{table.name}.key DESC"] in [
        [part.removeprefix(f"{table.schema}.") for part in order] for order in orders
    ]


def test_an_alias_finds_its_version_by_model_and_version() -> None:
    assert versions.FILTERS["alias"].startswith("(r.model, r.version) IN (")
    assert ["model", "version"] in [[str(column.name) for column in index.columns] for index in registration.indexes]
