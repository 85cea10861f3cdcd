"""Decides whether an alias moves to a version: by its gates, whether it is protected, and whether a second person approves."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from schemas.gates import FAILED, PASSED, GateVerdict
from schemas.models import AliasRefused, GatesChecked, ModelRegistered
from schemas.reasons import Reason, shown
from services.chassis.kernel.aggregate import Decision, Ref, States
from services.registry.domain.aliases import (
    Approval,
    Change,
    ChangeRefused,
    Target,
    earlier_version,
    promote,
    refusal,
    roll_back,
)
from services.registry.domain.approving import Passed, ask, asked_for, waiting_for
from services.registry.domain.gates import checked
from services.registry.domain.requests import request_ref
from services.registry.domain.state import (
    REGISTRATION,
    ModelState,
    RegistrationState,
    check_ref,
    model_ref,
    registered_by,
    registration_ref,
)
from services.registry.domain.version_states import refusal_to_name


class Wish(NamedTuple):
    """Somebody wants an alias to name a version."""

    alias: str
    version: ModelRegistered
    change: Change
    accepts_inconclusive: bool = False
    """Whether a person takes it on themselves that the evidence does not suffice."""
    accepts_deprecated: bool = False
    """Whether a person takes it on themselves that the version is deprecated."""

    @property
    def accepts(self) -> bool:
        """Whether a person takes something on themselves."""
        return self.accepts_inconclusive or self.accepts_deprecated

    @property
    def target(self) -> Target:
        """The version, and the key of its row."""
        lineage = self.version.lineage
        return Target(self.version.version, registered_by(lineage.job_id, lineage.step))


class Decided(NamedTuple):
    """The own events of a decision, and why the alias does not move; no reason if it does or waits for approval."""

    decisions: tuple[Decision, ...]
    refused: tuple[Reason, ...] = ()
    waits: bool = False


_REASON_NEEDED = Reason(
    field="reason",
    value=shown(""),
    message="a reason is needed: the alias is protected, or inconclusive evidence or a deprecated version is accepted",
    remedy="say why the alias moves",
)


def rows_needed(alias: str, change: str, model: ModelState) -> tuple[Ref, ...]:
    """Return which rows `promotion` and `rollback` need beside those of the model, the version and the move."""
    policy, waiting = model.policy(alias), model.waiting(alias)
    requests = (waiting, change if policy.approval else None)
    refs = tuple(request_ref(request) for request in requests if request is not None)
    if not policy.gates:
        return refs
    holder = model.holders.get(alias)
    return (*refs, check_ref(change), *((Ref(REGISTRATION, holder),) if holder else ()))


def promotion(wish: Wish, states: States) -> Decided:
    """Decide that an alias moves to a version, waits for approval to do so, or why it does not.

    Raises ChangeRefused where no gate needs to be asked.
    """
    name, model = wish.version.model, _model(wish, states)
    if reason := refusal(wish.alias, model) or _without_reason(wish, model) or _by_state(wish, states):
        raise ChangeRefused(reason)
    verdict, checks, refused = _gated(wish, model, states)
    if refused:
        return Decided(checks, refused)
    if model.policy(wish.alias).approval:
        gates = Passed(verdict, wish.accepts_inconclusive, wish.accepts_deprecated)
        asked = ask(name, wish.alias, wish.target, wish.change, gates, states)
        return Decided((*checks, asked) if asked else (), waits=True)
    return Decided((*checks, promote(name, wish.alias, wish.target, model, wish.change, verdict)))


def approval(wish: Wish, request: str, states: States) -> Decided:
    """Decide that a request is approved by `wish.change`: its alias moves if the gates, asked again, let the version pass.

    Raises ChangeRefused.
    """
    name, model, approver = wish.version.model, _model(wish, states), wish.change
    asked = asked_for(waiting_for(wish.alias, request, model), approver.by, states)
    change = Change(approver.id, asked.by, asked.reason)
    theirs = wish._replace(
        change=change, accepts_inconclusive=wish.accepts_inconclusive or asked.accepts_inconclusive,
        accepts_deprecated=wish.accepts_deprecated or asked.accepts_deprecated,
    )  # fmt: skip
    if wish.accepts and not approver.reason:
        raise ChangeRefused(_REASON_NEEDED)
    if reason := _by_state(theirs, states):
        raise ChangeRefused(reason)
    verdict, checks, refused = _gated(theirs, model, states)
    if refused:
        return Decided(checks, refused)
    approved = Approval(request, approver.by, approver.reason)
    return Decided((*checks, promote(name, wish.alias, wish.target, model, change, verdict, approved)))


def rollback(wish: Wish, states: States, now: datetime) -> Decided:
    """Decide that an alias goes back to a version: without gates if it left it shortly before `now`. Raises ChangeRefused."""
    name, model = wish.version.model, _model(wish, states)
    version = earlier_version(wish.alias, wish.version.version, model)
    if model.may_go_back(wish.alias, version, now):
        return Decided((roll_back(name, wish.alias, wish.target, model, wish.change),))
    if model.policy(wish.alias).approval:
        message = "the alias left this version too long ago to go back to it without the approval of a second person"
        remedy = "ask for the promotion of this version instead"
        raise ChangeRefused(Reason(field="version", value=shown(version), message=message, remedy=remedy))
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
        decided = promotion(wish, states)
        checks, reasons = decided.decisions, decided.refused
        if not reasons:
            return decided
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
    if wish.change.reason or not (model.policy(wish.alias).protected or wish.accepts):
        return None
    return _REASON_NEEDED


def _by_state(wish: Wish, states: States) -> Reason | None:
    """Return why the state of the version does not let an alias name it. A version that is about to be registered is live."""
    row = states[registration_ref(wish.version.lineage.job_id, wish.version.lineage.step)]
    assert isinstance(row, RegistrationState)
    return refusal_to_name(row, accepts_deprecated=wish.accepts_deprecated) if row.registered else None


def _holder(alias: str, model: ModelState, states: States) -> ModelRegistered | None:
    key = model.holders.get(alias)
    held = states.get(Ref(REGISTRATION, key)) if key else None
    return held.registered if isinstance(held, RegistrationState) else None


def _model(wish: Wish, states: States) -> ModelState:
    state = states[model_ref(wish.version.model)]
    assert isinstance(state, ModelState)
    return state
