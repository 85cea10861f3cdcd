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

from services.chassis.storage.sources.settings import SourceSettings
from tests.integration.web.system import System, running_system
from tests.judging import Judging, judging
from tests.unit.web.asking import all_services

FEW = r"^/api/v1/((projections|dead-letters|partitions)/(trainer|feedback|registry)|training/start)"
"""Routes that get few requests: those that every service has once more, which are the same code, and the one whose schema has so many
fields that every boundary of each takes half a minute."""
JUDGED = r"^/api/v1/judgements$"
"""The route that starts a process for each judge: it gets few requests, and its judges may reach no model and no host."""
UNSAID = (
    r"^POST /api/v1/training/start$",  # whether steps fit together, and files and models are named that may be read
    r"^POST /api/v1/deployments$",  # whether a canary is shadowed, and what its judge needs
    r"^POST /api/v1/judgements$",  # whether a judge can be had: its model and host, and the rules that it needs
    r"^POST /api/v1/projections/[a-z]+/rebuild$",  # which tables a projection has
    r"^GET /api/v1/training\?.*cursor=", r"^GET /api/v1/models\?.*cursor=",
    r"^GET /api/v1/datasets\?.*cursor=",  # what a cursor is: only its giver knows
    r"^GET /api/v1/models\?.*filter=",  # the grammar of a condition
    r"^PUT /api/v1/models/[^/]+/aliases/[^/]+/policy$",  # that a gate has one of two bounds
    r"^GET /api/v1/dead-letters/[a-z]+\?.*after=",  # how large the numbers in a place are
)  # fmt: skip
"""Requests of which a schema cannot say whether they are valid: they may be refused, as 422 and in words."""


def document(few: str | None = None) -> BaseSchema:
    """The routes that get `few` requests, or all that get one for each boundary that the schema has."""
    schema: BaseSchema = schemathesis.openapi.from_dict(all_services().openapi())
    if few is not None:
        schema.config.phases.update(phases=["examples", "fuzzing"])
        return schema.include(path_regex=few)
    return schema.exclude(path_regex=f"{FEW}|{JUDGED}")


@pytest.fixture(scope="module")
def system(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(kafka, database_url, tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judging]:
    nothing = SourceSettings(folders=(), hub=False, public_hosts=False)
    with judging(tmp_path_factory.mktemp("judges"), sources=nothing) as running:
        yield running


def hold(case: Case[Any], address: str, job_id: str = "") -> None:
    """Ask, and have the answer judged by every check there is."""
    if "job_id" in case.path_parameters and len(case.path_parameters["job_id"]) % 2:
        case.path_parameters["job_id"] = job_id
    answer = case.call(base_url=address, timeout=60)
    asked = f"{case.method} {answer.request.path_url}"
    excluded: list[CheckFunction] = [positive_data_acceptance] if any(re.match(one, asked) for one in UNSAID) else []
    case.validate_response(answer, excluded_checks=excluded)


every, few, judged = document(), document(FEW), document(JUDGED)
BRIEF = settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@every.parametrize()
@BRIEF
def test_every_route_holds_what_it_documents(case: Case[Any], system: System) -> None:
    hold(case, system.address, system.job_id)


@few.parametrize()
@BRIEF
def test_the_others_do_for_a_few_requests(case: Case[Any], system: System) -> None:
    hold(case, system.address, system.job_id)


@judged.parametrize()
@BRIEF
def test_what_is_asked_of_judges_is_answered_as_documented(case: Case[Any], judges: Judging) -> None:
    hold(case, judges.address)


def test_a_stream_of_a_job_that_ended_is_whole(system: System) -> None:
    case = every["/api/v1/training/{job_id}/events"]["GET"].Case(path_parameters={"job_id": system.job_id})
    answer = case.call_and_validate(base_url=system.address, timeout=60)
    assert answer.headers["content-type"][0].startswith("text/event-stream")
    assert "event: end" in answer.text
