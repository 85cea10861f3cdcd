"""When an alias moves: by its gates, its protection, and how long ago it left the version that it goes back to."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from schemas.gates import AliasPolicy, Gate
from schemas.models import AliasRefused, GatesChecked, ModelPromoted
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.registry.domain.aliases import Change, ChangeRefused, remove
from services.registry.domain.policies import POLICIES_AT_MOST, set_policy
from services.registry.domain.promoting import Decided, Wish, promotion, rollback, rows_needed
from services.registry.domain.registering import further_rows, register, rows_of
from services.registry.domain.state import GateCheckState, RegistrationState, check_ref, move_ref
from services.registry.policy_views import GATES_AT_MOST
from tests.steps import request
from tests.unit.registry.test_models import MODEL, RegistryScenario, a_lineage, wanted

GOOD = Gate(metric="quality", comparison="at_least", threshold=0.8)
NOT_WORSE = Gate(metric="quality", comparison="at_least", worse_by=0.0)


class Gated(RegistryScenario):
    """A registry whose versions have a quality, and whose aliases have policies."""

    def made(self, quality: float | None, alias: str | None = None) -> str:
        """Register a version and return its number."""
        lineage = a_lineage(f"job-{len(self.events)}")
        asked = request(lineage.job_id, "register")
        unit = self.unit(*rows_of(asked, "router", alias))
        unit = self.unit(*further_rows(asked, "router", alias, unit.states))
        version = wanted(lineage).model_copy(update={"metrics": {"quality": quality}})
        result, decisions = register(asked, "router", alias, version, unit.states)
        self.events += [unit.apply(decision) for decision in decisions]
        return result.facts["version"]

    def rule(self, alias: str = "production", **policy: Any) -> None:
        change, unit = Change("c", "ana", "because"), self.unit(MODEL)
        decided = set_policy("router", alias, AliasPolicy(**policy), self.model, change)
        if decided:
            self.events.append(unit.apply(decided))

    def wants(
        self,
        version: str,
        decide: Callable[[Wish, UnitOfWork], Decided],
        *,
        accepts: bool = False,
        deprecated: bool = False,
        reason: str = "because",
    ) -> Decided:
        change = Change(f"change-{len(self.events)}", "ana", reason)
        unit = self.unit(MODEL, move_ref(change.id), *rows_needed("production", change.id, self.model))
        states = (row.state for row in self.rows.values())
        made = [state.registered for state in states if isinstance(state, RegistrationState) and state.registered]
        wish = Wish("production", next(one for one in made if one.version == version), change, accepts, deprecated)
        decided = decide(wish, unit)
        self.events += [unit.apply(decision) for decision in decided.decisions]
        return decided

    def promoted(self, version: str, **asked: Any) -> Decided:
        return self.wants(version, lambda wish, unit: promotion(wish, unit.states), **asked)

    def back(self, version: str, days: float = 0) -> Decided:
        return self.wants(version, lambda wish, unit: rollback(wish, unit.states, unit.now + timedelta(days=days)))

    @property
    def production(self) -> str | None:
        return self.model.aliases.get("production")

    def check(self) -> GatesChecked:
        return next(event.data for event in reversed(self.events) if isinstance(event.data, GatesChecked))


def test_a_version_that_passes_moves_the_alias_and_the_evidence_is_stored_under_the_id_of_the_move() -> None:
    registry = Gated()
    registry.rule(gates=(GOOD,))
    version = registry.made(0.9)
    assert registry.promoted(version).refused == ()
    checked, moved = (event.data for event in registry.events[-2:])
    assert isinstance(checked, GatesChecked)
    assert isinstance(moved, ModelPromoted)
    assert (checked.check, checked.verdict, checked.holder) == (moved.move, "passed", None)
    assert moved.verdict == registry.moves[-1].verdict == "passed"
    stored = registry.rows[check_ref(checked.check)].state
    assert isinstance(stored, GateCheckState)
    assert stored.check is not None
    assert (stored.check.gates, stored.check.by) == (checked.gates, "ana")


@pytest.mark.parametrize("accepts", [False, True])
def test_a_failed_gate_is_not_overridden_but_by_another_policy(accepts: bool) -> None:
    registry = Gated()
    registry.rule(gates=(GOOD,))
    version = registry.made(0.7)
    (reason,) = registry.promoted(version, accepts=accepts).refused
    assert (reason.field, reason.value) == ("gates.quality", "0.7")
    assert reason.message.startswith("failed: it is 0.1 beyond the limit")
    assert registry.check().verdict == "failed"
    assert registry.production is None
    registry.rule()
    assert registry.promoted(version).refused == ()
    assert registry.production == version


def test_an_inconclusive_verdict_waits_for_a_person_who_says_why() -> None:
    registry = Gated()
    registry.rule(gates=(GOOD,))
    version = registry.made(None)
    (reason,) = registry.promoted(version).refused
    assert "accept_inconclusive" in reason.remedy
    with pytest.raises(ChangeRefused, match="a reason is needed"):
        registry.promoted(version, accepts=True, reason="")
    assert registry.production is None
    assert registry.promoted(version, accepts=True).refused == ()
    assert registry.production == version
    assert registry.moves[-1].verdict == "inconclusive"


def test_a_version_is_compared_with_the_one_that_the_alias_names_now() -> None:
    registry = Gated()
    first, better, worse = registry.made(0.8), registry.made(0.9), registry.made(0.85)
    registry.promoted(first)
    registry.rule(gates=(NOT_WORSE,))
    assert registry.promoted(better).refused == ()
    assert registry.promoted(worse).refused
    (said,) = registry.check().gates
    assert (registry.check().holder, said.value, said.holder_value) == (better, 0.85, 0.9)
    assert registry.production == better


def test_with_nothing_to_compare_with_a_relative_gate_is_inconclusive() -> None:
    registry = Gated()
    registry.rule(gates=(NOT_WORSE,))
    assert registry.promoted(registry.made(0.9)).refused
    assert registry.check().verdict == "inconclusive"


@pytest.mark.parametrize(("quality", "verdict"), [(0.7, "failed"), (None, "inconclusive")])
def test_a_job_whose_version_does_not_pass_has_its_version_and_the_log_says_which_gate(
    quality: float | None, verdict: str
) -> None:
    registry = Gated()
    registry.rule(gates=(GOOD,))
    version = registry.made(quality, "production")
    refused = registry.events[-1].data
    assert isinstance(refused, AliasRefused)
    assert (refused.version, refused.check, registry.check().verdict) == (version, registry.check().check, verdict)
    assert refused.reasons[0].field == "gates.quality"
    assert registry.production is None
    assert registry.made(0.9, "production") == registry.production


def test_no_job_moves_a_protected_alias_and_nobody_removes_it_or_moves_it_without_a_reason() -> None:
    registry = Gated()
    version = registry.made(0.9, "production")
    registry.rule(protected=True)
    later = registry.made(0.9, "production")
    refused = registry.events[-1].data
    assert isinstance(refused, AliasRefused)
    assert (refused.check, "protected" in refused.reasons[0].message) == (None, True)
    with pytest.raises(ChangeRefused, match="the alias is protected"):
        registry.change(lambda model, state, change: remove(model, "production", state, change))
    with pytest.raises(ChangeRefused, match="say why"):
        registry.promoted(later, reason="")
    assert registry.production == version
    registry.promoted(later)
    assert registry.production == later


@pytest.mark.parametrize(("days", "moves"), [(0, True), (29.9, True), (30.1, False)])
def test_a_rollback_asks_no_gate_for_thirty_days(days: float, moves: bool) -> None:
    registry = Gated()
    bad, good = registry.made(0.5), registry.made(0.9)
    registry.promoted(bad)
    registry.promoted(good)
    registry.rule(gates=(GOOD,))
    assert (registry.back(bad, days).refused == ()) is moves
    assert registry.production == (bad if moves else good)


def test_the_window_is_of_the_policy_and_begins_when_the_alias_leaves_the_version_last() -> None:
    registry = Gated()
    bad, good = registry.made(0.5), registry.made(0.9)
    registry.promoted(bad)
    registry.promoted(good)
    registry.rule(gates=(GOOD,), rollback_days=0)
    assert registry.back(bad, 0.001).refused
    registry.rule(gates=(GOOD,), rollback_days=1)
    assert registry.back(bad, 0.9).refused == ()
    assert registry.model.left["production"] == {}, "a version that the alias went back from is no good one"


def test_a_policy_stays_when_its_alias_is_removed_and_the_same_policy_is_no_event() -> None:
    registry = Gated()
    version = registry.made(0.5, "production")
    registry.rule(gates=(GOOD,))
    told = len(registry.events)
    registry.rule(gates=(GOOD,))
    assert len(registry.events) == told
    registry.change(lambda model, state, change: remove(model, "production", state, change))
    assert registry.promoted(version).refused


def test_so_many_aliases_have_a_policy_at_most_and_the_state_of_a_model_stays_bounded() -> None:
    registry = Gated()
    gates = (NOT_WORSE,) * GATES_AT_MOST
    for number in range(POLICIES_AT_MOST):
        registry.rule(f"a{number}", gates=gates)
    with pytest.raises(ChangeRefused, match="have a policy already"):
        registry.rule("another", gates=gates)
    registry.rule("a0", gates=gates[1:])
    for _ in range(40):
        registry.promoted(registry.made(0.9))
    assert len(registry.model.model_dump_json()) < 100_000
    assert len(registry.model.left["production"]) == len(registry.model.earlier["production"])
