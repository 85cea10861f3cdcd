"""When an alias waits for a second person: who may approve, what they approve, and what ends the waiting."""

from typing import Any

import pytest

from schemas.models import AliasRefused, GatesChecked, ModelPromoted, ModelRolledBack, PromotionDeclined, PromotionRequested
from services.registry.domain.aliases import Change, ChangeRefused, remove
from services.registry.domain.approving import decline, waiting_for
from services.registry.domain.promoting import Decided, Wish, approval, promotion, rows_needed
from services.registry.domain.requests import PromotionRequestState, request_ref
from services.registry.domain.state import RegistrationState, move_ref
from tests.unit.registry.test_models import MODEL
from tests.unit.registry.test_promoting import GOOD, NOT_WORSE, Gated


class Approved(Gated):
    """A registry in which ana asks and bo approves what `production` names."""

    def __init__(self, **policy: Any) -> None:
        super().__init__()
        self.rule(approval=True, **policy)

    def asked(self, version: str, **how: Any) -> str:
        """Let ana ask for a version; return the id of what waits."""
        self.promoted(version, **how)
        return self.waiting

    @property
    def waiting(self) -> str:
        return self.model.requests["production"].id

    def approves(
        self, request: str, by: str = "bo", *, accepts: bool = False, deprecated: bool = False, reason: str = "I looked."
    ) -> Decided:
        change = Change(f"change-{len(self.events)}", by, reason)
        unit = self.unit(MODEL, move_ref(change.id), *rows_needed("production", change.id, self.model))
        wanted = waiting_for("production", request, self.model).version
        states = (row.state for row in self.rows.values())
        made = [state.registered for state in states if isinstance(state, RegistrationState) and state.registered]
        version = next(one for one in made if one.version == wanted)
        decided = approval(Wish("production", version, change, accepts, deprecated), request, unit.states)
        self.events += [unit.apply(decision) for decision in decided.decisions]
        return decided

    def declines(self, request: str, by: str = "bo") -> None:
        unit, waiting = self.unit(MODEL), waiting_for("production", request, self.model)
        made = decline("router", waiting, "production", Change("c", by, "Not now."))
        self.events.append(unit.apply(made))

    def status(self, request: str) -> tuple[str, str | None]:
        state = self.rows[request_ref(request)].state
        assert isinstance(state, PromotionRequestState)
        return state.outcome.status, state.outcome.decided_by


def test_what_one_person_asks_for_another_approves_and_the_move_names_both() -> None:
    registry = Approved(gates=(GOOD,))
    version = registry.made(0.9)
    decided = registry.promoted(version)
    assert (decided.waits, decided.refused, registry.production) == (True, (), None)
    checked, asked = (event.data for event in registry.events[-2:])
    assert isinstance(checked, GatesChecked)
    assert isinstance(asked, PromotionRequested)
    assert (asked.request, asked.verdict, asked.by) == (checked.check, "passed", "ana")
    registry.approves(asked.request)
    moved = registry.events[-1].data
    assert isinstance(moved, ModelPromoted)
    assert (moved.by, moved.reason, moved.approved_by, moved.approval_reason) == ("ana", "because", "bo", "I looked.")
    assert (moved.request, moved.supersedes, registry.check().check) == (asked.request, None, moved.move)
    assert (registry.production, registry.model.requests) == (version, {})
    assert registry.status(asked.request) == ("approved", "bo")
    assert (registry.moves[-1].approved_by, registry.moves[-1].request) == ("bo", asked.request)


@pytest.mark.parametrize("name", ["ana", "Ana", " ana ", "\uff41na", "unknown", "Unknown"])
def test_nobody_approves_what_they_asked_for_however_they_write_their_name_nor_without_one(name: str) -> None:
    registry = Approved()
    request = registry.asked(registry.made(0.9))
    with pytest.raises(ChangeRefused, match="somebody else has to approve it"):
        registry.approves(request, name)
    assert registry.waiting == request


def test_it_must_be_known_who_asks() -> None:
    registry = Approved()
    version = registry.made(0.9)
    with pytest.raises(ChangeRefused, match="it must be known who asks"):
        registry.wants(version, lambda wish, unit: promotion(wish._replace(change=Change("c", "unknown", "")), unit.states))


def test_a_request_is_approved_or_declined_once() -> None:
    registry = Approved()
    version = registry.made(0.9)
    for answer, other in (("approves", "declines"), ("declines", "approves")):
        request = registry.asked(version)
        getattr(registry, answer)(request)
        told = len(registry.events)
        for late in (answer, other):
            with pytest.raises(ChangeRefused, match="this request waits for no approval"):
                getattr(registry, late)(request)
        assert len(registry.events) == told
        version = registry.made(0.9)


def test_who_asked_takes_the_request_back_and_the_alias_stays() -> None:
    registry = Approved()
    request = registry.asked(registry.made(0.9))
    registry.declines(request, "ana")
    assert isinstance(registry.events[-1].data, PromotionDeclined)
    assert (registry.status(request), registry.production) == (("declined", "ana"), None)


def test_a_newer_request_takes_the_place_of_the_one_that_waits_and_the_same_again_is_no_event() -> None:
    registry = Approved()
    first, second = registry.made(0.9), registry.made(0.9)
    older = registry.asked(first)
    told = len(registry.events)
    assert (registry.promoted(first).waits, len(registry.events)) == (True, told)
    newer = registry.asked(second)
    asked = registry.events[-1].data
    assert isinstance(asked, PromotionRequested)
    assert (asked.supersedes, registry.status(older)) == (older, ("superseded", "ana"))
    with pytest.raises(ChangeRefused, match=f"{newer} does, for {second}"):
        registry.approves(older)
    registry.approves(newer)
    assert registry.production == second


def test_a_move_a_removal_and_rules_without_approval_end_the_waiting() -> None:
    registry = Approved()
    first, second, third = (registry.made(0.9) for _ in range(3))
    for version in (first, second):
        registry.approves(registry.asked(version))
    request = registry.asked(third)
    registry.back(first)
    moved = registry.events[-1].data
    assert isinstance(moved, ModelRolledBack)
    assert (moved.supersedes, registry.status(request), registry.model.requests) == (request, ("superseded", "ana"), {})
    request = registry.asked(third)
    registry.change(lambda model, state, change: remove(model, "production", state, change))
    assert registry.status(request)[0] == "superseded"
    request = registry.asked(third)
    registry.rule(approval=True, rollback_days=1)
    assert registry.waiting == request, "other rules of an alias that needs approval let the request wait"
    registry.rule()
    assert (registry.status(request)[0], registry.model.requests) == ("superseded", {})
    assert registry.promoted(third).waits is False
    assert registry.production == third


def test_the_gates_are_asked_again_by_whoever_approves_and_a_refusal_leaves_the_request() -> None:
    registry = Approved(gates=(GOOD,))
    request = registry.asked(registry.made(0.9))
    registry.rule(approval=True, gates=(GOOD.model_copy(update={"threshold": 0.95}),))
    assert registry.approves(request).refused
    assert (registry.check().verdict, registry.production, registry.waiting) == ("failed", None, request)
    registry.rule(approval=True, gates=(GOOD,))
    registry.approves(request)
    assert registry.status(request) == ("approved", "bo")


def test_what_the_gates_refuse_is_not_asked_for() -> None:
    registry = Approved(gates=(GOOD,))
    decided = registry.promoted(registry.made(0.5))
    assert (bool(decided.refused), decided.waits, registry.model.requests) == (True, False, {})


def test_who_asks_or_who_approves_accepts_inconclusive_evidence_with_a_reason() -> None:
    registry = Approved(gates=(NOT_WORSE,))
    version = registry.made(0.9)
    assert registry.promoted(version).refused
    registry.approves(registry.asked(version, accepts=True))
    assert (registry.production, registry.moves[-1].verdict) == (version, "inconclusive")
    better = registry.made(0.95)
    request = registry.asked(better)
    registry.rule(approval=True, gates=(NOT_WORSE.model_copy(update={"rows": 100}),))
    assert registry.approves(request).refused
    with pytest.raises(ChangeRefused, match="a reason is needed"):
        registry.approves(request, accepts=True, reason="")
    registry.approves(request, accepts=True)
    assert registry.production == better


def test_a_job_asks_for_approval_and_completes_with_its_version() -> None:
    registry = Approved()
    version = registry.made(0.9, "production")
    asked = registry.events[-1].data
    assert isinstance(asked, PromotionRequested)
    assert (asked.version, asked.by, registry.production) == (version, "r", None)
    registry.approves(asked.request)
    assert registry.production == version


def test_a_job_does_not_even_ask_where_the_alias_is_protected() -> None:
    registry = Approved(protected=True)
    registry.made(0.9, "production")
    assert isinstance(registry.events[-1].data, AliasRefused)
    assert registry.model.requests == {}


@pytest.mark.parametrize(("days", "moves"), [(29.9, True), (30.1, False)])
def test_a_rollback_needs_approval_only_after_the_window(days: float, moves: bool) -> None:
    registry = Approved()
    first, second = registry.made(0.9), registry.made(0.9)
    for version in (first, second):
        registry.approves(registry.asked(version))
    if moves:
        assert registry.back(first, days).refused == ()
    else:
        with pytest.raises(ChangeRefused, match="ask for the promotion of this version"):
            registry.back(first, days)
    assert registry.production == (first if moves else second)


def test_the_state_of_a_model_holds_one_request_of_each_alias_at_most() -> None:
    registry = Approved()
    for _ in range(30):
        registry.asked(registry.made(0.9))
    assert len(registry.model.requests) == 1
