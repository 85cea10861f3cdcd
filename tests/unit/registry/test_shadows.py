"""Which requests of callers a canary gets beside the version before, what becomes of their answers, and what a judge's word counts."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import permutations
from typing import Any, cast

import pytest
from pydantic import ValidationError

from schemas.artifacts import ArtifactRef
from schemas.deployments import DeploymentShadowed, Shadow
from schemas.envelope import Event
from schemas.jobs import JobFailed, StepCompleted, StepFault, StepResult
from services.chassis.process.metrics import REGISTRY
from services.registry.calling.asked import Asked, read
from services.registry.calling.routing import Canary, Server
from services.registry.calling.traffic import Step
from services.registry.deploying.views import RolloutAsked
from services.registry.domain.deployments.judged import (
    JudgementState,
    after_telling,
    job_id_of,
    pairs_judged,
    told_judgement,
)
from services.registry.shadowing import sending
from services.registry.shadowing.choosing import TEXT_BYTES, is_plain
from services.registry.shadowing.sending import AT_ONCE, WAITING_AT_MOST, Shadows
from tests.model_servers import Behaviour
from tests.steps import an_event
from tests.toy import until
from tests.unit.registry.test_calling import FixedRouting, ask, callers, servers

JOB = job_id_of("support", "01980c5f-0000-7000-8000-000000000001")


def asked(**fields: Any) -> Asked:
    body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return read(json.dumps(body).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"n": 2},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "tool", "content": "42"}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
        {"messages": [{"role": "user", "content": "x" * TEXT_BYTES}]},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_a_request_that_is_not_only_short_text_is_not_shadowed(fields: dict[str, Any]) -> None:
    assert is_plain(asked())
    assert not is_plain(asked(**fields))


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        ({"shadow": {}}, "strategy canary"),
        ({"strategy": "canary", "steps": [100], "shadow": {}}, "leaves callers"),
        ({"strategy": "canary", "shadow": {"feedback": {"judge": {"kind": "rules"}}}}, "no rule"),
        ({"strategy": "canary", "shadow": {"share": 0}}, "greater than 0"),
    ],
)
def test_a_wish_whose_answers_no_judge_could_compare_is_refused(rollout: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RolloutAsked.model_validate(rollout)


class Unstored(Shadows):
    """Shadow traffic without a database; what would be stored is kept."""

    def __init__(self, routing: FixedRouting) -> None:
        super().__init__(routing, cast(Any, None), cast(Any, None))

    async def _store(self) -> None:
        return

    @property
    def pairs(self) -> Sequence[dict[str, Any]]:
        return [json.loads(pair) for _, pair in self._pairs.values()]


@asynccontextmanager
async def shadowing(active: Behaviour, target: Behaviour, **shadow: Any) -> AsyncIterator[tuple[FixedRouting, Unstored]]:
    """Run a version, a canary to which no caller is led, and the shadow traffic between them."""
    async with servers(active, target) as (before, after):
        steps = [Step("support", 2, 0.001, target=is_target) for is_target in (False, True)]
        canary = Canary(0.001, after._replace(step=steps[1]), Shadow(**{"share": 1.0, **shadow}))
        routing = FixedRouting(before._replace(step=steps[0]), canary=canary)
        shadows, stop = Unstored(routing), asyncio.Event()
        running = asyncio.create_task(shadows.run(stop))
        try:
            yield routing, shadows
        finally:
            stop.set()
            await running


@asynccontextmanager
async def hung() -> AsyncIterator[str]:
    """Run a server that takes requests and never answers."""
    connections = list[asyncio.StreamWriter]()
    server = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for connection in connections:
        connection.close()
    server.close()


def lead(routing: FixedRouting, canary: Canary) -> None:
    """Let another canary be the deployment's."""
    routing.table = replace(routing.table, canaries={"support": canary})


def counted(outcome: str) -> float:
    found = REGISTRY.get_sample_value("neuroweaver_deployment_shadows_total", {"deployment": "support", "outcome": outcome})
    return found or 0.0


async def test_the_canary_answers_what_the_version_before_answered_whole_or_in_pieces() -> None:
    async with shadowing(Behaviour(says="I am the old one."), Behaviour(says="I am new.")) as (routing, shadows):
        async with callers(routing, shadows) as client:
            answers = [await ask(client, stream=stream) for stream in (False, True)]
        await until(lambda: len(shadows.pairs) == 2)
    assert {answer.headers["x-neuroweaver-version"] for answer in answers} == {"router@1.0.0"}
    assert {pair["id"] for pair in shadows.pairs} == {answer.headers["x-neuroweaver-response"] for answer in answers}
    for pair in shadows.pairs:
        assert (pair["first"].strip(), pair["second"]) == ("I am the old one.", "I am new.")
        assert (pair["first_version"], pair["second_version"]) == ("router@1.0.0", "router@2.0.0")
        assert pair["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("target", "outcome"),
    [(Behaviour(status=500), "failed"), (Behaviour(says=" "), "empty"), (Behaviour(says="x" * 70_000), "left out")],
)
async def test_a_canary_that_answers_with_nothing_of_use_makes_no_pair_and_callers_notice_nothing(
    target: Behaviour, outcome: str
) -> None:
    before = counted(outcome)
    async with shadowing(Behaviour(), target) as (routing, shadows):
        async with callers(routing, shadows) as client:
            answers = [await ask(client) for _ in range(3)]
        await until(lambda: counted(outcome) == before + 3)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert shadows.pairs == []


async def test_a_canary_that_hangs_delays_no_caller_and_what_it_cannot_take_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "ANSWER_SECONDS", 3600.0)
    before, more = counted("dropped"), 5
    async with hung() as address, shadowing(Behaviour(), Behaviour()) as (routing, shadows):
        canary = routing.table.canaries["support"]
        lead(routing, canary._replace(server=canary.server._replace(address=address)))
        async with callers(routing, shadows) as client:
            for _ in range(AT_ONCE):
                assert (await ask(client)).status_code == 200
            await until(lambda: shadows._waiting.empty())
            for _ in range(WAITING_AT_MOST + more):
                assert (await ask(client)).status_code == 200
        assert counted("dropped") == before + more
    assert shadows.pairs == []


async def test_a_share_of_the_requests_is_shadowed_until_there_are_pairs_enough() -> None:
    few = shadowing(Behaviour(), Behaviour(), share=0.25, most_pairs=3)
    async with few as (routing, shadows), callers(routing, shadows) as client:
        for _ in range(9):
            await ask(client)
        await until(lambda: len(shadows.pairs) == 2)
        for _ in range(40):
            await ask(client)
        await until(lambda: len(shadows.pairs) == 3 and shadows._waiting.empty())


async def test_nothing_is_shadowed_without_a_wish_for_it_nor_of_the_canary_itself() -> None:
    async with shadowing(Behaviour(), Behaviour()) as (routing, shadows):
        server: Server = routing.table.deployments["support"][0]
        canary = routing.table.canaries["support"]
        assert shadows.wants(server, asked())
        assert not shadows.wants(canary.server, asked())
        lead(routing, canary._replace(shadow=None))
        assert not shadows.wants(server, asked())


def said(
    wins: int, losses: int, *, seconds: int = 5, job: str = JOB, judge: str = "told", **metrics: float | None
) -> Event:
    counts = {"second_better": float(wins), "first_better": float(losses), "ties": 1.0, "unjudged": 0.0, **metrics}
    result = StepResult(metrics=counts, facts={"judge": judge})
    return an_event(
        StepCompleted(job_id=job, step="compare", attempt=1, kind="compare", result=result), "neuroweaver/feedback",
        seconds=seconds, subject=job,
    )  # fmt: skip


def given(job: str = JOB, seconds: int = 1, digest: str = "c") -> Event:
    told = DeploymentShadowed(
        deployment="support", model="router", generation=2, version="2.0.0", judgement=job, count=20, percent=10,
        pairs=ArtifactRef(uri="/p", sha256=digest * 64, size=1), active_generation=1, active_version="1.0.0",
    )  # fmt: skip
    return an_event(told, "neuroweaver/registry", seconds=seconds)


def folded(*events: Event) -> JudgementState:
    state = JudgementState()
    for event in events:
        state = after_telling(state, event)
    return state


def test_a_judgement_is_the_same_in_whatever_order_its_facts_are_read_and_the_earliest_of_two_results_counts() -> None:
    failed = an_event(
        JobFailed(job_id=JOB, step=None, fault=StepFault(cause="hung", message="late")), seconds=7, subject=JOB
    )
    facts = (given(), said(3, 1), said(0, 9, seconds=6), failed)
    states = [folded(*order) for order in permutations(facts)]
    assert all(state == states[0] for state in states)
    judged = pairs_judged([states[0]])
    assert judged is not None
    assert (judged.wins, judged.losses, judged.ties) == (3, 1, 1)


def test_a_judge_that_says_no_count_or_a_job_that_nobody_asked_for_decides_nothing() -> None:
    assert pairs_judged([folded(given(), said(9, 9, ties=None))]) is None
    assert pairs_judged([folded(said(9, 9))]) is None
    assert told_judgement(said(1, 1, job="support-2026").data) is None
    assert told_judgement(said(1, 1).data) is not None


def test_batches_of_one_judge_are_added_up_and_those_of_an_earlier_judge_are_left_out() -> None:
    jobs = [job_id_of("support", f"01980c5f-0000-7000-8000-00000000000{number}") for number in range(3)]
    states = [
        folded(given(jobs[0], 1, "a"), said(0, 5, job=jobs[0], judge="before")),
        folded(given(jobs[1], 2, "b"), said(3, 1, job=jobs[1])),
        folded(given(jobs[2], 3, "c"), said(4, 2, job=jobs[2])),
    ]
    judged = pairs_judged(states)
    assert judged is not None
    assert (judged.wins, judged.losses, judged.judge, judged.pairs) == (7, 3, "told", ("b" * 64, "c" * 64))
    assert judged.low is not None
    assert judged.high is not None
    assert judged.low < 0.7 < judged.high
