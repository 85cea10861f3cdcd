"""What is decided about a deployment: the version that serves goes on until another is ready, and what does not get ready is given up."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from schemas.deployments import DeploymentDegraded, DeploymentRequested, DeploymentRolledBack
from services.registry.deploying.conditions import UNKNOWN_AFTER, Conditions, SlotView
from services.registry.deploying.driver import Observed
from services.registry.deploying.slots import GARBAGE, SlotRow, checked
from services.registry.domain.deployments.deciding import (
    GRACE_SECONDS,
    HOPELESS,
    DeploymentRefused,
    Seen,
    observed,
    overdue,
    request,
    retire,
    retry,
    roll_back,
)
from services.registry.domain.deployments.state import Deployments, slot_of
from tests.deployments import START, Life, failing, serving, wish

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
        {"address": "ftp://x"}, {"address": "http://"}, {"address": "http://h/path"}, {"served": 7}, {"sha256": None},
        {"message": "a\0b"}, {"message": b"x"}, {"since": None}, {"since": datetime.max.replace(tzinfo=UTC)}, {"headers": ((1, 2),)}, {"headers": None},
    ],
)  # fmt: skip
def test_a_driver_that_says_nonsense_of_a_slot_has_it_failed(fields: dict[str, Any]) -> None:
    wrong = Observed(**{**{name: getattr(SEEN, name) for name in SEEN.__dataclass_fields__}, **fields})
    (row,) = checked([wrong], START).values()
    assert (row.state, row.reason, row.address) == ("failed", GARBAGE, None)
    assert len(row.message) <= 2000


def test_what_a_driver_says_is_bounded_and_what_is_no_observation_is_passed_over() -> None:
    rows = checked([None, "x", 7, replace(SEEN, slot=cast(str, 7)), replace(SEEN, message="m" * 10**6), SEEN], START)
    assert list(rows) == [("support", "g1")]
    assert rows["support", "g1"] == checked([SEEN], START)["support", "g1"]
    (long,) = checked([replace(SEEN, message="m" * 10**6)], START).values()
    assert len(long.message) <= 2000
    assert isinstance(long, SlotRow)
