"""Given prices and a budget, when a job's attempts run, then it ends in words when the budget is spent."""

from typing import Any

import pytest

from schemas.base import EventData
from schemas.jobs import JobFailed, JobRejected
from schemas.usage import Prices, StepUsage
from services.orchestrator.domain.decide import due
from services.orchestrator.domain.spending import spent
from tests.unit.orchestrator.scenario import POLICY, JobScenario, names

PRICES = Prices(currency="EUR", core_hour=36.0, device_hour=3600.0, kwh=1.0)
PRICED = POLICY.model_copy(update={"prices": PRICES})
PIPELINE = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
]


def job(budget: float | None = 10.0, **fields: Any) -> JobScenario:
    scenario = JobScenario(policy=PRICED)
    scenario.requested(pipeline=PIPELINE, budget=budget, **fields)
    return scenario


def usage(cost: float, currency: str = "EUR") -> StepUsage:
    return StepUsage(seconds=5.0, cores=1, devices=0, processor_joules=7.0, cost=cost, currency=currency)


def failure(decided: list[EventData]) -> str:
    data = decided[-1]
    assert isinstance(data, JobFailed)
    return data.fault.message


def test_a_budget_without_prices_is_refused_in_words() -> None:
    for prices in (None, Prices(currency="EUR", kwh=0.3)):
        scenario = JobScenario(policy=POLICY.model_copy(update={"prices": prices}))
        (refused,) = scenario.requested(budget=3)
        assert isinstance(refused, JobRejected)
        assert "budget: the operator has set no price for machine time" in str(refused.reasons[0])


@pytest.mark.parametrize("budget", [0, -1, float("inf"), "much"])
def test_what_is_no_amount_is_refused(budget: object) -> None:
    (refused,) = JobScenario(policy=PRICED).requested(budget=budget)
    assert isinstance(refused, JobRejected)
    assert refused.reasons[0].field == "budget"


def test_a_job_whose_budget_is_spent_stops_its_attempts_and_fails_in_words() -> None:
    scenario = job()
    scenario.completed("prepare", usage=usage(4.0))
    scenario.started("train", cores=10, devices=1)
    assert scenario.after(5.4) == [], "1.1 EUR a second"
    decided = scenario.after(0.1)
    assert names(decided) == ["StepCancelRequested train/1", "JobFailed"]
    assert failure(decided) == (
        "budget: the job has cost 10 EUR since it was accepted or retried (got 10); retry it, which continues it from its "
        "checkpoints for the same amount; or send it with a larger one under a new id"
    )


def test_the_ticker_wakes_when_the_budget_is_spent_and_not_for_a_job_without_one() -> None:
    for budget, seconds in ((10.0, 10.0 / 1.1), (None, POLICY.step_timeout_seconds)):
        scenario = job(budget)
        scenario.started("prepare", cores=10, devices=1)
        wakes = due(scenario.state)
        assert wakes is not None
        assert (wakes - scenario.now).total_seconds() == pytest.approx(seconds)


def test_two_attempts_that_run_at_once_spend_it_together() -> None:
    scenario = JobScenario(policy=PRICED)
    scenario.requested(budget=10.0)
    scenario.run("prepare")
    scenario.started("train", devices=1)
    scenario.after(4)
    scenario.started("evaluate-base", devices=1)
    assert scenario.after(2.9) == []
    assert names(scenario.after(0.2))[-1] == "JobFailed"


def test_what_earlier_attempts_cost_counts_even_if_nobody_measured_it() -> None:
    scenario = job()
    scenario.started("prepare", devices=1)
    scenario.after(9)
    scenario.failed("prepare")
    scenario.after(20)
    scenario.started("prepare", attempt=2, devices=1)
    assert names(scenario.after(1.1))[-1] == "JobFailed"


def test_a_last_step_that_costs_more_than_is_left_does_not_undo_a_completed_job() -> None:
    scenario = job()
    scenario.run("prepare")
    assert names(scenario.completed("train", usage=usage(99.0))) == ["JobCompleted"]


def test_a_retry_continues_the_job_for_the_same_amount() -> None:
    scenario = job()
    scenario.started("prepare", devices=1)
    scenario.after(11)
    assert scenario.state.status == "failed"
    assert names(scenario.control("retry")) == ["JobControlled", "StepRequested.v2 prepare/2"]
    scenario.started("prepare", attempt=2, devices=1)
    assert scenario.after(9) == []
    assert names(scenario.after(2))[-1] == "JobFailed"


def test_a_paused_job_spends_nothing() -> None:
    scenario = job()
    scenario.started("prepare", devices=1)
    scenario.after(5)
    scenario.control("pause")
    scenario.stopped("prepare")
    assert scenario.after(10_000) == []
    assert scenario.state.status == "paused"


def test_a_job_shows_what_its_attempts_used_and_cost_by_currency() -> None:
    scenario = job(None)
    scenario.failed("prepare", usage=usage(1.0))
    scenario.after(20)
    scenario.completed("prepare", attempt=2, usage=usage(2.0, "USD"))
    scenario.completed("train", usage=usage(0.5).model_copy(update={"processor_joules": None}))
    found = spent(scenario.state)
    assert (found.seconds, found.joules, found.costs) == (15.0, 14.0, {"EUR": 1.5, "USD": 2.0})
