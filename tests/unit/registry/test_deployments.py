"""What is decided about a deployment: the version that serves goes on until another is ready, and what does not get ready is given up."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from schemas.deployments import (
    Check,
    DeploymentDegraded,
    DeploymentReady,
    DeploymentRequested,
    DeploymentRolledBack,
    PairsJudged,
    Rollout,
    Shadow,
)
from services.registry.deploying.conditions import UNKNOWN_AFTER, Conditions, SlotView
from services.registry.deploying.driver import Observed, Target
from services.registry.deploying.drivers import Drivers
from services.registry.deploying.slots import GARBAGE, DriverFault, checked
from services.registry.domain.deployments.analysis import BOUNDS, Measured, Traffic, interval
from services.registry.domain.deployments.deciding import (
    GRACE_SECONDS,
    HOPELESS,
    DeploymentRefused,
    Seen,
    advance,
    observed,
    overdue,
    request,
    retire,
    retry,
    roll_back,
)
from services.registry.domain.deployments.state import Deployments, slot_of
from tests.deployments import START, Life, failing, serving, wish

NO_TRAFFIC = Traffic()
ONE, TWO = wish("1.0.0"), wish("2.0.0")


def slots(life: Life, active: Seen | None = None, target: Seen | None = None) -> Mapping[str, Seen]:
    seen = ((life.state.active, active), (life.state.target, target))
    return {slot_of(wanted): one for wanted, one in seen if wanted is not None and one is not None}


def deployed(*versions: DeploymentRequested) -> Life:
    """A deployment that came to serve these versions one after the other."""
    life = Life()
    for version in versions:
        life.take(request(life.state, version))
        life.take(observed(life.state, slots(life, target=serving(life.state.target)), life.now))
    return life


def test_a_version_serves_when_it_is_ready_and_the_one_before_is_kept_warm_for_a_while() -> None:
    life = deployed(ONE, TWO)
    assert life.events == ["Requested 1.0.0", "Ready 1.0.0", "Requested 2.0.0", "Ready 2.0.0"]
    assert [one.version for one in life.state.slots(life.now)] == ["2.0.0", "1.0.0"]
    assert [one.version for one in life.state.slots(life.now + timedelta(seconds=30))] == ["2.0.0"]


def test_the_version_that_serves_goes_on_while_the_next_one_is_not_ready() -> None:
    life = deployed(ONE)
    life.take(request(life.state, TWO))
    for target in (None, Seen("", "", "starting", "Loading", ""), failing("OutOfMemory"), serving(ONE)):
        assert observed(life.state, slots(life, serving(life.state.active), target), life.now) is None
    assert life.state.active is not None
    assert life.state.active.version == "1.0.0"


@pytest.mark.parametrize("reason", sorted(HOPELESS))
def test_a_version_that_can_never_be_ready_is_given_up_at_once(reason: str) -> None:
    life = deployed(ONE)
    life.take(request(life.state, TWO))
    told = life.take(observed(life.state, slots(life, serving(life.state.active), failing(reason)), life.now))
    assert isinstance(told, DeploymentRolledBack)
    assert (told.version, told.to_version, told.to_generation, told.reason) == ("2.0.0", "1.0.0", 1, reason)
    assert life.state.slots(life.now) == (life.state.active,)


def test_a_version_that_is_not_ready_in_time_is_given_up_and_not_asked_for_again_by_itself() -> None:
    life = deployed(ONE)
    life.take(request(life.state, TWO))
    due = Deployments().due(life.state)
    assert due == life.now + timedelta(seconds=60)
    assert overdue(life.state, due - timedelta(seconds=1)) is None
    life.take(overdue(life.state, due))
    assert life.events[-1] == "RolledBack 2.0.0"
    assert life.state.given_up is not None
    assert life.state.given_up.reason == "ProgressDeadlineExceeded"
    assert (Deployments().due(life.state), overdue(life.state, due)) == (None, None)


def test_a_first_version_that_is_late_is_told_once_and_may_still_become_ready() -> None:
    life = Life()
    life.take(request(life.state, ONE))
    late = START + timedelta(seconds=100)
    assert isinstance(life.take(overdue(life.state, late)), DeploymentDegraded)
    assert (Deployments().due(life.state), overdue(life.state, late)) == (None, None)
    life.take(observed(life.state, slots(life, target=serving(life.state.target)), late))
    assert life.events == ["Requested 1.0.0", "Degraded 1.0.0", "Ready 1.0.0"]
    assert life.state.trouble is None


def test_a_version_that_stops_to_serve_is_told_after_a_while_and_again_when_it_serves() -> None:
    life = deployed(ONE)
    short, long = failing("NotAnswering", GRACE_SECONDS - 1), failing("NotAnswering", GRACE_SECONDS)
    assert observed(life.state, slots(life, short), life.now) is None
    life.take(observed(life.state, slots(life, long), life.now))
    assert observed(life.state, slots(life, long), life.now) is None
    life.take(observed(life.state, slots(life, serving(life.state.active)), life.now))
    assert observed(life.state, slots(life, serving(life.state.active)), life.now) is None
    assert life.events[2:] == ["Degraded 1.0.0", "Ready 1.0.0"]


def test_a_slot_that_serves_something_else_does_not_serve() -> None:
    life = deployed(ONE)
    other = serving(life.state.active)._replace(sha256="f" * 64, unready_seconds=GRACE_SECONDS)
    told = life.take(observed(life.state, slots(life, other), life.now))
    assert isinstance(told, DeploymentDegraded)
    assert told.reason == "WrongModel"


def test_a_good_version_replaces_a_broken_one_and_a_broken_rollout_stays_with_a_broken_one() -> None:
    broken = failing("Unloadable", GRACE_SECONDS)
    life = deployed(ONE)
    life.take(observed(life.state, slots(life, broken), life.now))
    life.take(request(life.state, TWO))
    life.take(observed(life.state, slots(life, broken, broken), life.now))
    assert life.events[2:] == ["Degraded 1.0.0", "Requested 2.0.0", "RolledBack 2.0.0"]
    life.take(retry(life.state, "ana", "The disk is repaired."))
    life.take(observed(life.state, slots(life, broken, serving(life.state.target)), life.now))
    assert life.events[-2:] == ["Requested 2.0.0", "Ready 2.0.0"]
    assert life.state.trouble is None


def test_a_person_gives_up_what_is_rolled_out_or_returns_to_the_version_before_while_it_is_warm() -> None:
    life = deployed(ONE)
    life.take(request(life.state, TWO))
    life.take(roll_back(life.state, "ana", "No.", life.now))
    life.take(retry(life.state, "ana", "Yes."))
    life.take(observed(life.state, slots(life, target=serving(life.state.target)), life.now))
    life.take(roll_back(life.state, "ana", "No.", life.now))
    assert life.state.active is not None
    assert (life.state.active.version, life.state.returns_to(life.now)) == ("1.0.0", None)
    assert life.events[3:] == ["RolledBack 2.0.0", "Requested 2.0.0", "Ready 2.0.0", "RolledBack 2.0.0"]
    cold = deployed(ONE, TWO)
    with pytest.raises(DeploymentRefused, match="warm"):
        roll_back(cold.state, "ana", "No.", cold.now + timedelta(seconds=30))


def test_the_same_version_with_another_driver_is_another_wish() -> None:
    life = deployed(ONE)
    life.take(request(life.state, wish("1.0.0", driver="vllm")))
    assert life.state.target is not None
    assert (life.state.target.generation, life.state.target.driver) == (2, "vllm")


async def test_a_slot_whose_driver_is_not_configured_any_more_says_so_until_it_is_removed() -> None:
    drivers = Drivers({})
    about = ("router", "1.0.0", ONE.artifact, "adapter", "base", None)
    await drivers.ensure(Target("support", "g1", *about, driver="vllm"))
    (slot,) = checked(await drivers.observed(), START).values()
    assert (slot.state, slot.reason) == ("failed", "DriverUnavailable")
    assert "NEUROWEAVER_SERVING_VLLM" in slot.message
    await drivers.remove("support", "g1", 0)
    assert await drivers.observed() == []


def test_what_changes_nothing_is_no_wish_and_another_model_needs_another_name() -> None:
    life = deployed(ONE)
    assert request(life.state, wish("1.0.0", by="ben", reason="again")) is None
    assert request(life.state, wish("1.0.0", alias="production", follow=True)) is not None
    with pytest.raises(DeploymentRefused, match="another name"):
        request(life.state, wish("1.0.0", model="other"))
    with pytest.raises(DeploymentRefused, match="not given up"):
        retry(life.state, "ana", "r")


def test_a_retired_deployment_serves_nothing_and_its_name_is_used_again_with_the_next_number() -> None:
    life = deployed(ONE)
    life.take(retire(life.state, "ana", "Nobody asks."))
    assert life.state.slots(life.now) == ()
    assert Deployments().values(life.state) == {"model": "router", "open": False}
    for change in (retire, retry):
        with pytest.raises(DeploymentRefused, match="retired"):
            change(life.state, "ana", "r")
    assert observed(life.state, {}, life.now) is None
    again = life.take(request(life.state, ONE))
    assert again is not None
    assert again.generation == 2


def test_a_newer_wish_takes_the_place_of_what_is_rolled_out() -> None:
    life = deployed(ONE)
    life.take(request(life.state, TWO))
    life.take(request(life.state, wish("3.0.0")))
    ready = {"g2": serving(TWO), "g3": serving(wish("3.0.0"))}
    life.take(observed(life.state, {**slots(life, serving(life.state.active)), **ready}, life.now))
    assert life.events[-1] == "Ready 3.0.0"


CANARY = Rollout(
    strategy="canary", steps=(10, 100), step_seconds=5, least_requests=20, deadline_seconds=60, bake_seconds=30
)


def canary(**fields: Any) -> Life:
    """A deployment whose second version has its first share of the callers."""
    life = deployed(ONE)
    life.take(request(life.state, wish("2.0.0", rollout=CANARY, **fields)))
    step(life)
    return life


def traffic(answers: int, errors: int = 0, empty: int = 0, seconds: float = 0.1) -> Traffic:
    latencies = tuple(answers if number == bisect_left(BOUNDS, seconds) else 0 for number in range(len(BOUNDS) + 1))
    return Traffic(answers + errors, errors, empty, latencies)


def step(life: Life, target: Traffic = NO_TRAFFIC, active: Traffic = NO_TRAFFIC, seen: Seen | None = None) -> None:
    """Look at a deployment whose slots serve, after callers got this."""
    looked = slots(life, serving(life.state.active), seen or serving(life.state.target))
    life.take(observed(life.state, looked, life.now, Measured(target, active)))


def test_a_canary_gets_its_shares_one_after_the_other_and_then_serves_all() -> None:
    life = canary()
    assert (life.state.percent, life.events[-1]) == (10, "Advanced 2.0.0")
    step(life, traffic(19))
    step(life, traffic(50))
    assert life.state.percent == 10, "the step is too short"
    life.seconds += 5
    step(life, traffic(19))
    assert life.state.percent == 10, "too few callers"
    step(life, traffic(20), traffic(100))
    assert life.state.percent == 100
    life.seconds += 6
    step(life, traffic(20), traffic(100))
    assert life.events[2:] == ["Requested 2.0.0", "Advanced 2.0.0", "Advanced 2.0.0", "Ready 2.0.0"]
    assert isinstance(life.told[-1], DeploymentReady)
    assert life.told[-1].analysis is not None
    assert (life.told[-1].analysis.verdict, life.told[-1].analysis.percent) == ("passed", 100)
    assert life.state.percent is None


@pytest.mark.parametrize(
    ("target", "active", "failed"),
    [
        (traffic(10, errors=10), traffic(100), "error_rate"),
        (traffic(0, errors=3), traffic(100), "error_rate"),
        (traffic(30, empty=10), traffic(100), "empty_rate"),
        (traffic(30, seconds=0.4), traffic(100), "p95_seconds"),
    ],
)
def test_a_canary_that_is_worse_is_given_up_with_the_evidence(target: Traffic, active: Traffic, failed: str) -> None:
    life = canary()
    step(life, target, active)
    told = life.told[-1]
    assert isinstance(told, DeploymentRolledBack)
    assert told.analysis is not None
    assert (told.reason, told.to_version) == ("AnalysisFailed", "1.0.0")
    assert [check.name for check in told.analysis.checks if check.verdict == "failed"] == [failed]
    assert failed in told.message
    assert (life.state.target, life.state.percent) == (None, None)


@pytest.mark.parametrize(
    ("target", "active"),
    [
        (traffic(20, errors=20), traffic(50, errors=50)),
        (traffic(30, empty=15), traffic(100, empty=50)),
        (traffic(30, seconds=0.4), traffic(5)),
        (traffic(30, seconds=0.12), traffic(100)),
    ],
)
def test_a_canary_need_not_be_better_than_the_version_before_and_few_requests_fail_nothing(
    target: Traffic, active: Traffic
) -> None:
    life = canary()
    life.seconds += 10
    step(life, target, active)
    assert life.state.percent == 100


def test_one_failure_among_few_requests_waits_for_more_and_a_step_without_verdict_is_given_up() -> None:
    life = canary()
    life.seconds += 10
    step(life, traffic(19, errors=1))
    assert life.state.percent == 10
    due = Deployments().due(life.state)
    life.seconds += 55
    assert due is not None
    assert life.now < due, "who measures it comes first"
    step(life, traffic(19, errors=1))
    told = life.told[-1]
    assert isinstance(told, DeploymentRolledBack)
    assert (told.reason, told.analysis and told.analysis.verdict) == ("AnalysisInconclusive", "inconclusive")
    blind = canary()
    blind.take(overdue(blind.state, blind.now + timedelta(seconds=71)))
    assert "no verdict at 10 %" in cast(DeploymentRolledBack, blind.told[-1]).message


def shadowed_canary() -> Life:
    """A canary of which a judge has to prefer the answers in 40 % of at least ten decided pairs."""
    shadow = Shadow(least_pairs=10, win_rate=0.4)
    life = deployed(ONE)
    life.take(request(life.state, wish("2.0.0", rollout=CANARY.model_copy(update={"shadow": shadow}))))
    step(life)
    life.seconds += 10
    return life


def judged(wins: int, losses: int, ties: int = 0) -> PairsJudged:
    low, high = interval(wins, wins + losses) if wins + losses else (None, None)
    return PairsJudged(
        wins=wins, losses=losses, ties=ties, unjudged=0, low=low, high=high, judge="told", judge_model_sha256=None,
        rubric_sha256="a" * 64, pairs=("b" * 64,),
    )  # fmt: skip


def look(life: Life, said: PairsJudged | None) -> None:
    looked = slots(life, serving(life.state.active), serving(life.state.target))
    life.take(observed(life.state, looked, life.now, Measured(traffic(30), traffic(100), said)))


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (None, "inconclusive"),
        (judged(0, 0, ties=50), "inconclusive"),
        (judged(9, 0), "inconclusive"),
        (judged(5, 5), "passed"),
        (judged(3, 7), "inconclusive"),
        (judged(1, 19), "failed"),
        (judged(0, 6), "failed"),
    ],
)
def test_what_a_judge_says_of_a_canary_joins_the_other_checks_and_what_it_does_not_say_decides_nothing(
    said: PairsJudged | None, verdict: str
) -> None:
    life = shadowed_canary()
    look(life, said)
    assert life.state.percent == {"passed": 100, "failed": None, "inconclusive": 10}[verdict]
    if verdict == "inconclusive":
        life.seconds += 55
        look(life, said)
    told = life.told[-1]
    if verdict != "passed":
        assert isinstance(told, DeploymentRolledBack)
        assert (told.reason, "judge_score" in told.message) == (f"Analysis{verdict.capitalize()}", True)
    analysis = cast(DeploymentRolledBack, life.told[-1]).analysis
    assert analysis is not None
    (check,) = [one for one in analysis.checks if one.name == "judge_score"]
    assert (check.verdict, check.limit, check.judged) == (verdict, 0.4, said)


def test_an_analysis_of_an_earlier_release_is_read() -> None:
    old = {"name": "error_rate", "verdict": "passed", "value": 0.0, "limit": 0.1, "requests": 9}
    assert Check.model_validate(old).judged is None
    assert Rollout.model_validate({"strategy": "canary"}).shadow is None


def test_a_canary_that_stops_to_serve_is_given_up_and_one_beside_a_broken_version_serves_at_once() -> None:
    life = canary()
    step(life, seen=failing("NotAnswering", GRACE_SECONDS))
    assert life.events[-1] == "RolledBack 2.0.0"
    life = canary()
    life.take(observed(life.state, slots(life, failing("Failed", GRACE_SECONDS), failing("Restarting")), life.now))
    assert life.events[-1] == "Degraded 1.0.0"
    life.take(observed(life.state, slots(life, failing("Failed", 60), serving(life.state.target)), life.now))
    assert life.events[-1] == "Ready 2.0.0"


def test_a_person_advances_a_canary_and_gives_it_up() -> None:
    life = canary()
    life.take(advance(life.state, "ana", "Few ask it."))
    assert (life.state.percent, life.told[-1].model_dump()["by"]) == (100, "ana")
    life.take(advance(life.state, "ana", "Few ask it."))
    assert life.events[-1] == "Ready 2.0.0"
    with pytest.raises(DeploymentRefused, match="no canary"):
        advance(life.state, "ana", "r")
    other = canary()
    other.take(roll_back(other.state, "ana", "No.", other.now))
    assert (other.state.percent, other.events[-1]) == (None, "RolledBack 2.0.0")


def test_a_version_that_dies_while_the_one_before_is_warm_is_replaced_by_it() -> None:
    life = deployed(ONE, TWO)
    dead = {"g2": failing("NotAnswering", GRACE_SECONDS), "g1": serving(ONE)}
    told = life.take(observed(life.state, dead, life.now))
    assert isinstance(told, DeploymentRolledBack)
    assert (told.version, told.to_version, told.reason) == ("2.0.0", "1.0.0", "NotAnswering")
    both = deployed(ONE, TWO)
    both.take(observed(both.state, {**dead, "g1": failing("NotAnswering")}, both.now))
    assert both.events[-1] == "Degraded 2.0.0"


def view(slot: Seen, name: str, at: datetime) -> SlotView:
    return SlotView(slot=name, **{**slot._asdict(), "since": at, "observed_at": at})


def said(life: Life, seen: Mapping[str, Seen], age: timedelta = timedelta()) -> dict[str, tuple[str, str]]:
    shown = {name: view(one, name, life.now - age) for name, one in seen.items()}
    return {one.type: (one.status, one.reason) for one in Conditions(state=life.state, slots=shown, now=life.now).all()}


def test_conditions_say_how_it_is_and_know_nothing_when_nobody_has_looked() -> None:
    life = Life()
    life.take(request(life.state, ONE))
    loading = slots(life, target=Seen("", "", "starting", "Loading", ""))
    assert said(life, loading)["Ready"] == ("False", "NothingServes")
    assert said(life, loading)["Progressing"] == ("True", "Loading")
    life.take(observed(life.state, slots(life, target=serving(life.state.target)), life.now))
    ready = slots(life, serving(life.state.active))
    assert said(life, ready) == {
        "Ready": ("True", "Serving"), "Progressing": ("False", "Complete"), "Degraded": ("False", "AsWished"),
    }  # fmt: skip
    assert said(life, slots(life, failing("Restarting")))["Ready"] == ("False", "Restarting")
    for old in (said(life, ready, UNKNOWN_AFTER + timedelta(seconds=1)), said(life, {})):
        assert {old["Ready"], old["Degraded"]} == {("Unknown", "NotObserved")}
    life.take(observed(life.state, slots(life, failing("Failed", 60)), life.now))
    assert said(life, {})["Degraded"] == ("True", "Failed")


SEEN = Observed(
    deployment="support", slot="g1", served="router@1.0.0", sha256="a" * 64, state="ready", reason="Ready", message="",
    address="http://127.0.0.1:9000", since=START, headers=(("authorization", "Bearer x"),),
)  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "happy"}, {"state": None}, {"reason": "not a word"}, {"reason": "R" * 99}, {"reason": None}, {"address": None},
        {"address": "ftp://x"}, {"address": "http://"}, {"address": "http://h/path/"}, {"address": "http://h?x=1"}, {"served": 7}, {"called": None}, {"sha256": None},
        {"message": "a\0b"}, {"message": b"x"}, {"since": None}, {"since": datetime.max.replace(tzinfo=UTC)}, {"headers": ((1, 2),)}, {"headers": None},
    ],
)  # fmt: skip
def test_a_driver_that_says_nonsense_of_a_slot_has_it_failed(fields: dict[str, Any]) -> None:
    wrong = Observed(**{**{name: getattr(SEEN, name) for name in SEEN.__dataclass_fields__}, **fields})
    (row,) = checked([wrong], START).values()
    assert (row.state, row.reason, row.address) == ("failed", GARBAGE, None)
    assert len(row.message) <= 2000


@pytest.mark.parametrize("answer", [None, 7, "x", replace(SEEN, slot=cast(str, 7)), replace(SEEN, deployment="a\0b")])
def test_an_answer_that_is_about_no_slot_says_nothing_of_all(answer: object) -> None:
    with pytest.raises(DriverFault):
        checked([SEEN, answer], START)


def test_what_a_driver_says_is_bounded() -> None:
    assert list(checked([SEEN], START)) == [("support", "g1")]
    (long,) = checked([replace(SEEN, message="m" * 10**6)], START).values()
    assert len(long.message) <= 2000
