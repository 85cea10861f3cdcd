"""Every route holds what its documentation says, for whatever is sent: requests are made from the OpenAPI document."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import CheckFunction
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.integration.web.system import System, running_system
from tests.unit.web.asking import all_services

FEW = r"^/api/v1/((projections|dead-letters|partitions)/(trainer|feedback|registry)|training/start)"
"""Routes that get few requests: those that every service has once more, which are the same code, and the one whose schema has so many
fields that every boundary of each takes half a minute."""
UNASKED = r"^/api/v1/judgements$"
"""The route that starts a process and loads the model that a request names, wherever that is."""
UNSAID = (
    r"^POST /api/v1/training/start$",  # whether steps fit together, and files and models are named that may be read
    r"^POST /api/v1/projections/[a-z]+/rebuild$",  # which tables a projection has
    r"^GET /api/v1/training\?.*cursor=", r"^GET /api/v1/models\?.*cursor=",  # what a cursor is: only its giver knows
    r"^GET /api/v1/dead-letters/[a-z]+\?.*after=",  # how large the numbers in a place are
)  # fmt: skip
"""Requests of which a schema cannot say whether they are valid: they may be refused, as 422 and in words."""


def document(*, few: bool) -> BaseSchema:
    """The routes that get few requests, or all others, which get one for each boundary that the schema has."""
    schema: BaseSchema = schemathesis.openapi.from_dict(all_services().openapi())
    if few:
        schema.config.phases.update(phases=["examples", "fuzzing"])
        return schema.include(path_regex=FEW)
    return schema.exclude(path_regex=f"{FEW}|{UNASKED}")


@pytest.fixture(scope="module")
def system(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(kafka, database_url, tmp_path_factory.mktemp("system")) as running:
        yield running


def hold(case: Case[Any], system: System) -> None:
    """Ask, and have the answer judged by every check there is."""
    if "job_id" in case.path_parameters and len(case.path_parameters["job_id"]) % 2:
        case.path_parameters["job_id"] = system.job_id
    answer = case.call(base_url=system.address, timeout=60)
    asked = f"{case.method} {answer.request.path_url}"
    excluded: list[CheckFunction] = [positive_data_acceptance] if any(re.match(one, asked) for one in UNSAID) else []
    case.validate_response(answer, excluded_checks=excluded)


every, few = document(few=False), document(few=True)
BRIEF = settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@every.parametrize()
@BRIEF
def test_every_route_holds_what_it_documents(case: Case[Any], system: System) -> None:
    hold(case, system)


@few.parametrize()
@BRIEF
def test_the_others_do_for_a_few_requests(case: Case[Any], system: System) -> None:
    hold(case, system)


def test_a_stream_of_a_job_that_ended_is_whole(system: System) -> None:
    case = every["/api/v1/training/{job_id}/events"]["GET"].Case(path_parameters={"job_id": system.job_id})
    answer = case.call_and_validate(base_url=system.address, timeout=60)
    assert answer.headers["content-type"][0].startswith("text/event-stream")
    assert "event: end" in answer.text
