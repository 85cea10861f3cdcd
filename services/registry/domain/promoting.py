"""Decides whether an alias moves to a version: by its gates, and by whether it is protected."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from schemas.gates import FAILED, PASSED, GateVerdict
from schemas.models import AliasRefused, GatesChecked, ModelRegistered
from schemas.reasons import Reason, shown
from services.chassis.kernel.aggregate import Decision, Ref, States
from services.registry.domain.aliases import (
    Change,
    ChangeRefused,
    Target,
    earlier_version,
    promote,
    refusal,
    roll_back,
)
from services.registry.domain.gates import checked
from services.registry.domain.state import (
    REGISTRATION,
    ModelState,
    RegistrationState,
    check_ref,
    model_ref,
    registered_by,
)


class Wish(NamedTuple):
    """Somebody wants an alias to name a version."""

    alias: str
    version: ModelRegistered
    change: Change
    accepts_inconclusive: bool = False
    """Whether a person takes it on themselves that the evidence does not suffice."""

    @property
    def target(self) -> Target:
        """The version, and the key of its row."""
        lineage = self.version.lineage
        return Target(self.version.version, registered_by(lineage.job_id, lineage.step))


class Decided(NamedTuple):
    """The own events of a decision, and why the alias does not move; no reason if it does."""

    decisions: tuple[Decision, ...]
    refused: tuple[Reason, ...] = ()


def rows_needed(alias: str, change: str, model: ModelState) -> tuple[Ref, ...]:
    """Return which rows `promotion` and `rollback` need beside those of the model, the version and the move."""
    if not model.policy(alias).gates:
        return ()
    holder = model.holders.get(alias)
    return (check_ref(change), *((Ref(REGISTRATION, holder),) if holder else ()))


def promotion(wish: Wish, states: States) -> Decided:
    """Decide that an alias moves to a version, or why it does not. Raises ChangeRefused where no gate needs to be asked."""
    name, model = wish.version.model, _model(wish, states)
    if reason := refusal(wish.alias, model) or _without_reason(wish, model):
        raise ChangeRefused(reason)
    verdict, checks, refused = _gated(wish, model, states)
    if refused:
        return Decided(checks, refused)
    return Decided((*checks, promote(name, wish.alias, wish.target, model, wish.change, verdict)))


def rollback(wish: Wish, states: States, now: datetime) -> Decided:
    """Decide that an alias goes back to a version: without gates if it left it shortly before `now`. Raises ChangeRefused."""
    name, model = wish.version.model, _model(wish, states)
    version = earlier_version(wish.alias, wish.version.version, model)
    if model.may_go_back(wish.alias, version, now):
        return Decided((roll_back(name, wish.alias, wish.target, model, wish.change),))
    verdict, checks, refused = _gated(wish, model, states)
    if refused:
        return Decided(checks, refused)
    return Decided((*checks, roll_back(name, wish.alias, wish.target, model, wish.change, verdict)))


def promotion_by_job(wish: Wish, states: States) -> Decided:
    """Decide that the alias of a job moves to the version it made. Where it does not, an event says why: the version stays."""
    model = _model(wish, states)
    checks: tuple[Decision, ...] = ()
    try:
        if model.policy(wish.alias).protected:
            message, remedy = (
                "the alias is protected, so no job moves it",
                "move it by hand, or name another alias in the job",
            )
            raise ChangeRefused(Reason(field="alias", value=shown(wish.alias), message=message, remedy=remedy))
        checks, reasons = promotion(wish, states)
        if not reasons:
            return Decided(checks)
    except ChangeRefused as refused:
        reasons = (refused.reason,)
    made = wish.version
    event = AliasRefused(
        model=made.model, alias=wish.alias, version=made.version, by=wish.change.by, reasons=reasons,
        check=wish.change.id if checks else None,
    )  # fmt: skip
    return Decided((*checks, Decision(model_ref(made.model), made.model, event)), reasons)


def _gated(wish: Wish, model: ModelState, states: States) -> tuple[str | None, tuple[Decision, ...], tuple[Reason, ...]]:
    """Return what the gates say, the event about it, and why the alias does not move."""
    gates = model.policy(wish.alias).gates
    if not gates:
        return None, (), ()
    verdict, verdicts = checked(gates, wish.version, _holder(wish.alias, model, states))
    name = wish.version.model
    event = GatesChecked(
        model=name, alias=wish.alias, version=wish.version.version, holder=model.aliases.get(wish.alias), verdict=verdict,
        gates=verdicts, by=wish.change.by, check=wish.change.id,
    )  # fmt: skip
    passes = verdict == PASSED or (verdict != FAILED and wish.accepts_inconclusive)
    refused = () if passes else tuple(_reasons(verdicts, wish.accepts_inconclusive))
    return verdict, (Decision(model_ref(name), name, event),), refused


def _reasons(verdicts: Iterable[GateVerdict], accepted: bool) -> Iterator[Reason]:
    for said in verdicts:
        if said.verdict == PASSED or (said.verdict != FAILED and accepted):
            continue
        remedy = (
            "train a better version, or set other gates of the alias"
            if said.verdict == FAILED
            else "gather the evidence, or let a person accept it: accept_inconclusive, with a reason"
        )
        value = None if said.value is None else f"{said.value:.6g}"
        yield Reason(field=f"gates.{said.gate.metric}", value=value, message=f"{said.verdict}: {said.why}", remedy=remedy)


def _without_reason(wish: Wish, model: ModelState) -> Reason | None:
    if wish.change.reason or not (model.policy(wish.alias).protected or wish.accepts_inconclusive):
        return None
    message = "a reason is needed: the alias is protected, or inconclusive evidence is accepted"
    return Reason(field="reason", value=shown(""), message=message, remedy="say why the alias moves")


def _holder(alias: str, model: ModelState, states: States) -> ModelRegistered | None:
    key = model.holders.get(alias)
    held = states.get(Ref(REGISTRATION, key)) if key else None
    return held.registered if isinstance(held, RegistrationState) else None


def _model(wish: Wish, states: States) -> ModelState:
    state = states[model_ref(wish.version.model)]
    assert isinstance(state, ModelState)
    return state
