"""Whatever is wrong with a request becomes a reason that a person can act on; nothing becomes an exception."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from schemas.bounds import REASONS_AT_MOST
from schemas.jobs import JobAccepted
from schemas.reasons import Reason
from schemas.steps import Policy
from services.orchestrator.domain import content
from services.orchestrator.domain.content import content_digest
from services.orchestrator.domain.validation import Examined, RejectedRequest, examine, size_at_most
from tests.explored import examples
from tests.unit.orchestrator.scenario import START, a_request


def reasons(request: dict[str, Any]) -> dict[str, Reason]:
    examined = examine(request, (), START)
    assert isinstance(examined, RejectedRequest)
    return {reason.field: reason for reason in examined.reasons}


REGISTERS_TWICE = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
    {"name": "first", "kind": "register", "inputs": {"adapter": "train.adapter"}},
    {"name": "second", "kind": "register", "inputs": {"adapter": "train.adapter"}},
]


def test_a_plain_request_is_taken_on_with_its_plan() -> None:
    examined = examine(a_request(), (), START)
    assert isinstance(examined, Examined)
    assert examined.request.training.lora.rank == 16
    assert examined.plan[0].name == "prepare"


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"pipeline": "magic"}, "pipeline", "'magic'"),
        ({"pipeline": []}, "pipeline", "[]"),
        ({"pipeline": 7}, "pipeline", "7"),
        ({"pipeline": [{"name": "a", "kind": "magic"}]}, "pipeline.0", "magic"),
        ({"job_id": "odd/id"}, "job_id", "'odd/id'"),
        ({"training": {"optimiser": {"steps": -3}}}, "training.optimiser.steps", "-3"),
        ({"training": {"optimiser": {"learning_rate": 1e9}}}, "training.optimiser.learning_rate", "1000000000.0"),
        ({"trainig": {}}, "trainig", "{}"),
        ({"deadline": "tomorrow"}, "deadline", "'tomorrow'"),
        ({"deadline": "2029-12-31T23:59:59Z"}, "deadline", "2029-12-31T23:59:59+00:00"),
        ({"deadline": "9999-12-31T23:59:59-12:00"}, "deadline", "9999-12-31T23:59:59-12:00"),
        ({"deadline": "0001-01-01T00:00:00+12:00"}, "deadline", "0001-01-01T00:00:00+12:00"),
        ({"job_id": "."}, "job_id", "'.'"),
        ({"job_id": ".."}, "job_id", "'..'"),
        ({"register_as": ".."}, "register_as", "'..'"),
        ({"alias": "."}, "alias", "'.'"),
        ({"alias": "1.0.0"}, "alias", "'1.0.0'"),
        ({"alias": "latest"}, "alias", "'latest'"),
        ({"register_version": "1.2"}, "register_version", "'1.2'"),
        ({"register_version": "v1.2.0"}, "register_version", "'v1.2.0'"),
        ({"register_version": "1.02.0"}, "register_version", "'1.02.0'"),
        ({"register_version": "1.2.0-rc1"}, "register_version", "'1.2.0-rc1'"),
        ({"register_version": 2}, "register_version", "2"),
        ({"register_version": "1.2.0", "pipeline": REGISTERS_TWICE}, "register_version", "'1.2.0'"),
        ({"pipeline": [{"name": "..", "kind": "prepare"}]}, "pipeline.0.name", "'..'"),
        ({"register_as": "späte modelle"}, "register_as", "'späte modelle'"),
    ],
)
def test_a_fault_names_its_field_its_value_and_a_remedy(fields: dict[str, Any], field: str, value: str) -> None:
    reason = reasons(a_request(**fields))[field]
    assert value in (reason.value or "")
    assert reason.message
    assert reason.remedy


def test_a_missing_field_is_to_be_added() -> None:
    request = a_request()
    del request["dataset"]
    assert reasons(request)["dataset"].remedy == "add the field"


def test_a_deadline_in_the_future_is_kept() -> None:
    examined = examine(a_request(deadline="2030-01-02T00:00:00+05:30"), (), START)
    assert isinstance(examined, Examined)
    assert examined.request.deadline is not None
    assert examined.request.deadline - START == timedelta(hours=18, minutes=30)


def test_what_could_not_even_be_stored_refuses_a_request_that_is_valid_without_it() -> None:
    fault = Reason(field="requester", value=None, message="text holds a NUL", remedy="send valid Unicode text")
    examined = examine(a_request(), (fault,), START)
    assert examined == RejectedRequest((fault,))


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 499 + ")" * 499, "("])
def test_a_pattern_that_upsets_the_regex_compiler_is_refused(pattern: str) -> None:
    request = a_request(evaluation={"rules": [{"name": "x", "kind": "regex", "pattern": pattern}]})
    assert list(reasons(request)) == ["evaluation.rules.0"]


def test_endless_nesting_is_refused_with_a_short_field() -> None:
    rule: dict[str, Any] = {"name": "x", "kind": "max_words", "words": 1}
    for _ in range(400):
        rule = {"name": "x", "kind": "any_of", "rules": [rule]}
    (field,) = reasons(a_request(evaluation={"rules": [rule]}))
    assert len(field) <= 200


def test_a_thousand_faults_are_told_in_a_record_of_bounded_size() -> None:
    unknown = {f"unknown-{number}" + "x" * 5000: number for number in range(1000)}
    found = reasons({**a_request(), **unknown})
    assert len(found) == REASONS_AT_MOST
    assert all(len(field) <= 200 for field in found)


def test_a_reason_never_repeats_all_that_was_sent() -> None:
    (reason,) = reasons(a_request(pipeline="\x07" * 500_000)).values()
    assert len(reason.model_dump_json()) < 2000


def test_a_plan_that_would_not_fit_into_a_record_is_refused() -> None:
    rules = [{"name": f"rule {n}", "kind": "contains_any", "values": ["x" * 90_000]} for n in range(2)]
    found = reasons(a_request(pipeline="rlaif", evaluation={"rules": rules}))
    assert "more than 524288 bytes" in found["(request)"].message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [*a_request(), "pipeline", "training", "sampling", "feedback", "evaluation", "deadline", "priority"]
)


@settings(max_examples=examples(300))
@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_json_gets_an_answer(fields: dict[str, Any]) -> None:
    examined = examine(a_request(**fields), (), START)
    assert isinstance(examined, Examined) or examined.reasons


@pytest.mark.parametrize(
    "fields",
    [
        {"pipeline": "sft"},
        {"pipeline": "rlaif", "evaluation": {"rules": [{"name": "ü", "kind": "contains_any", "values": ["\x07ü" * 5000]}]}},
        {"pipeline": [{"name": "p", "kind": "prepare"}]},
        {
            "pipeline": [
                {
                    "name": f"{'n' * 60}{number}",
                    "kind": "prepare",
                    "needs": [f"{'n' * 60}{before}" for before in range(number)],
                }
                for number in range(40)
            ]
        },
    ],
)
def test_no_plan_is_larger_than_its_request_and_its_steps_allow(fields: dict[str, Any]) -> None:
    """Else a plan that does not fit into a record would be accepted."""
    examined = examine(a_request(**fields), (), START)
    assert isinstance(examined, Examined), examined
    accepted = JobAccepted(job_id=examined.request.job_id, request=examined.request, plan=examined.plan, policy=Policy())
    assert len(accepted.model_dump_json().encode()) <= size_at_most(examined.request, examined.plan)


def test_the_digest_of_a_content_ignores_the_order_of_keys_and_the_spelling_of_whole_numbers() -> None:
    assert content_digest({"a": 1, "b": [{"c": 2.0}]}, ()) == content_digest({"b": [{"c": 2}], "a": 1.0}, ())


def test_the_digest_of_a_content_tells_true_from_one_and_text_from_numbers() -> None:
    digests = {content_digest({"a": value}, ()) for value in (1, True, "1", None, [1], 1.5)}
    assert len(digests) == 6


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "é"]), JSON_VALUES, max_size=3))
def test_what_is_remembered_of_a_request_is_what_the_request_gives(request: dict[str, Any]) -> None:
    """A result is remembered by a text; that must give the very same request again: 1 is not 1.0, and 0.0 not -0.0."""
    assert content_digest(request, ()) == content._digest(request, ())
    if (text := content.exact_text(request)) is not None:
        assert repr(from_json(text)) == repr(request)


def test_a_request_nested_too_deeply_to_be_remembered_has_a_digest_all_the_same() -> None:
    nested: Any = 1
    for _ in range(230):
        nested = {"a": nested}
    assert content.exact_text(nested) is None
    assert content_digest(nested, ()) == content._digest(nested, ())


def test_a_request_that_was_acceptable_before_is_refused_after_its_deadline() -> None:
    request = a_request(deadline=(START + timedelta(hours=1)).isoformat())
    assert isinstance(examine(request, (), START), Examined)
    late = examine(request, (), START + timedelta(hours=2))
    assert isinstance(late, RejectedRequest)
    assert [reason.field for reason in late.reasons] == ["deadline"]
    assert isinstance(examine(request, (), START), Examined)
