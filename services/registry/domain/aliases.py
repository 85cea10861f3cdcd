"""Decides how aliases move: to a version, back to an earlier one, or away. Every change says who made it, and why."""

from typing import NamedTuple

from schemas.models import AliasRemoved, ModelPromoted, ModelRolledBack
from schemas.reasons import Reason, first_of, shown
from schemas.versions import ALIAS_REMEDY, alias_fault
from services.chassis.kernel.aggregate import Decision
from services.registry.domain.state import ModelState, model_ref

ALIASES_AT_MOST = 100
"""The most aliases of one model, so that its state is bounded."""
_NAMED = 5


class Change(NamedTuple):
    """Who changes an alias, why, and under which id."""

    id: str
    by: str
    reason: str


class Approval(NamedTuple):
    """Who approved a request, and why."""

    request: str
    by: str
    reason: str


class ChangeRefused(Exception):
    """An alias cannot change as it was asked."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Target(NamedTuple):
    """The version that an alias is to name."""

    version: str
    registered_by: str | None = None
    """The key of its row, `job/step`."""


def promote(
    model: str, alias: str, target: Target, state: ModelState, change: Change, verdict: str | None = None,
    approval: Approval | None = None,
) -> Decision:  # fmt: skip
    """Move `alias` to `target`, which must be a version of the model, or about to be; `verdict` is that of the gates.

    Raises ChangeRefused.
    """
    if reason := refusal(alias, state):
        raise ChangeRefused(reason)
    moved = ModelPromoted(
        model=model, alias=alias, version=target.version, previous=state.aliases.get(alias), by=change.by, reason=change.reason,
        move=change.id, registered_by=target.registered_by, verdict=verdict,
        request=approval and approval.request, approved_by=approval and approval.by,
        approval_reason=approval.reason if approval else "", supersedes=None if approval else state.waiting(alias),
    )  # fmt: skip
    return Decision(model_ref(model), model, moved)


def refusal(alias: str, state: ModelState) -> Reason | None:
    """Return why `alias` cannot name a version of the model; None if it can. An alias that exists already keeps its name."""
    if alias in state.aliases:
        return None
    if fault := alias_fault(alias):
        return Reason(field="alias", value=shown(alias), message=fault, remedy=ALIAS_REMEDY)
    if len(state.aliases) >= ALIASES_AT_MOST:
        message = f"the model has {ALIASES_AT_MOST} aliases already"
        return Reason(
            field="alias", value=shown(alias), message=message, remedy="remove an alias that nobody uses any more"
        )
    return None


def roll_back(
    model: str, alias: str, target: Target, state: ModelState, change: Change, verdict: str | None = None
) -> Decision:
    """Let `alias` go back to `target`, which it named before; `verdict` is that of the gates. Raises ChangeRefused."""
    earlier_version(alias, target.version, state)
    moved = ModelRolledBack(
        model=model, alias=alias, version=target.version, previous=_current(alias, state), by=change.by, reason=change.reason,
        move=change.id, registered_by=target.registered_by, verdict=verdict, supersedes=state.waiting(alias),
    )  # fmt: skip
    return Decision(model_ref(model), model, moved)


def earlier_version(alias: str, version: str | None, state: ModelState) -> str:
    """Return the version that `alias` goes back to: `version`, or the last one that it named before. Raises ChangeRefused."""
    current, earlier = _current(alias, state), state.earlier.get(alias, ())
    if not earlier or (version is not None and version not in earlier):
        message = f"the alias names {current} and has not named {version or 'another version'} before, or too long ago"
        remedy = f"name one of {first_of(earlier[::-1], _NAMED)}" if earlier else "move the alias to a version instead"
        raise ChangeRefused(Reason(field="version", value=version and shown(version), message=message, remedy=remedy))
    return version or earlier[-1]


def remove(model: str, alias: str, state: ModelState, change: Change) -> Decision:
    """Take `alias` away from the version that it names. Raises ChangeRefused."""
    previous = _current(alias, state)
    if state.policy(alias).protected:
        message, remedy = "the alias is protected", "set another policy of the alias first"
        raise ChangeRefused(Reason(field="alias", value=shown(alias), message=message, remedy=remedy))
    removed = AliasRemoved(
        model=model, alias=alias, previous=previous, by=change.by, reason=change.reason, move=change.id,
        supersedes=state.waiting(alias),
    )  # fmt: skip
    return Decision(model_ref(model), model, removed)


def _current(alias: str, state: ModelState) -> str:
    if alias in state.aliases:
        return state.aliases[alias]
    known = first_of(sorted(state.aliases), _NAMED) or "no alias"
    raise ChangeRefused(
        Reason(field="alias", value=shown(alias), message="the model has no such alias", remedy=f"it has {known}")
    )
