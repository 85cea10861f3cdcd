"""What a filter says, and what one that cannot be read is told: place, token and remedy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import Reason
from services.registry.search.columns import COLUMNS
from services.registry.search.grammar import DEEPEST, condition_of, search_of
from services.registry.search.tokens import MOST_TOKENS, FilterFault
from services.registry.views import VersionSummary


def refused(text: str) -> Reason:
    with pytest.raises(FilterFault) as raised:
        condition_of(text)
    return raised.value.reason


def test_every_column_of_the_list_can_be_asked_for() -> None:
    shown = set(VersionSummary.model_fields) - {"metrics", "tags", "aliases"}
    assert shown | {"alias"} == set(COLUMNS)


def test_values_and_names_of_metrics_are_parameters_and_never_text_of_the_statement() -> None:
    odd = "x'; DROP TABLE registration; --"
    condition = condition_of(f"name = '{odd.replace(chr(39), chr(39) * 2)}' OR metrics.\"{odd}\" > 0.5")
    assert condition.values == (odd, odd, 0.5)
    assert "DROP" not in condition.sql
    assert condition.sql.count("{}") == 3


def test_of_what_must_all_be_true_one_equality_with_an_index_and_the_times_narrow_the_search() -> None:
    search = search_of("requester = 'ana' AND (job_id = 'j' AND registered_at >= '2026-11-02') AND metrics.loss < 1")
    assert search.narrowing == ("r.registered_at >= CAST({} AS timestamptz)", "r.job_id = CAST({} AS text)")
    assert search_of("job_id = 'j' OR name = 'm'").narrowing == ()
    assert search_of("NOT name = 'm'").narrowing == ()


@pytest.mark.parametrize(
    ("text", "words", "value"),
    [
        ("nme = 'a'", "at character 1, a column is needed", "nme"),
        ("name == 'a'", "at character 7, name is compared with a text", "="),
        ("name = support-router", "at character 8, name is compared with a text", "support"),
        ("name = 'a' name = 'b'", "at character 12, the filter should end", "name"),
        ("metrics.loss < 'low'", "at character 16, metrics.loss is compared with a number", "'low'"),
        ("name < 'a'", "at character 6, the column name is a text and has no order", "<"),
        ("version >= '1.2'", "at character 12, version is compared with a version", "'1.2'"),
        ("registered_at > 'soon'", "at character 17, registered_at is compared with a time", "'soon'"),
        ("registered_at > '9999-12-31'", "at character 17", "9999"),
        ("metrics.loss LIKE '1%'", "at character 14, LIKE compares texts", "LIKE"),
        ("name LIKE 'a\\'", "at character 11, a pattern cannot end with", "a"),
        ("name IN 'a'", "at character 9, a list in parentheses must follow IN", "'a'"),
        ("name IS 'a'", "at character 9, only NULL can follow IS", "'a'"),
        ("name = 'a", "at character 8, a quotation does not end", "'"),
        ("name ~ 'a'", "at character 6, an operator must follow the column name", "~"),
        ("(name = 'a'", "at the end, a parenthesis is not closed", None),
        ("name", "at the end, an operator must follow the column name", None),
        ("", "at the end, a column is needed", None),
        ("metrics = 1", "at character 1, a column is needed", "metrics"),
        ("purpose.x = 1", "at character 1, a column is needed", "purpose.x"),
        ("(" * (DEEPEST + 2) + "name = 'a'", "nested over", "("),
        ("NOT " * (DEEPEST + 2) + "name = 'a'", "nested over", "NOT"),
        ("name IN (" + "'a'," * MOST_TOKENS + "'a')", "words and signs", None),
    ],
)
def test_a_filter_that_cannot_be_read_is_told_where_and_what_to_do(text: str, words: str, value: str | None) -> None:
    reason = refused(text)
    assert reason.field == "query.filter"
    assert words in reason.message
    assert value is None or value in str(reason.value)
    assert reason.remedy


_WORDS = [
    "name",
    "metrics.loss",
    "'1.0'",
    "0.5",
    "AND",
    "or",
    "NOT",
    "(",
    ")",
    ",",
    "=",
    "!=",
    "<=",
    "LIKE",
    "IN",
    "IS",
    "NULL",
]


@given(st.lists(st.sampled_from(_WORDS), max_size=12).map(" ".join))
def test_any_words_are_a_condition_with_its_values_or_are_refused(text: str) -> None:
    _read(text)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_with_its_values_or_is_refused(text: str) -> None:
    _read(text)


def _read(text: str) -> None:
    try:
        condition = condition_of(text)
    except FilterFault:
        return
    assert condition.sql.count("{}") == len(condition.values)
