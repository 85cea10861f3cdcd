"""Decides that a promotion waits for a second person, and what that person says of it. Names are asserted: see docs/how-to."""

import unicodedata
from typing import NamedTuple

from schemas.models import PromotionDeclined, PromotionRequested
from schemas.reasons import Reason, shown
from services.chassis.kernel.aggregate import Decision, States
from services.registry.domain.aliases import Change, ChangeRefused, Target
from services.registry.domain.requests import Asked, PromotionRequestState, Waiting, request_ref
from services.registry.domain.state import ModelState, model_ref

_NOBODY = "unknown"
"""The name of who gives none."""


class Passed(NamedTuple):
    """What the gates said of a version, and whether who asks accepts inconclusive evidence or that the version is deprecated."""

    verdict: str | None
    accepts_inconclusive: bool
    accepts_deprecated: bool


def ask(model: str, alias: str, target: Target, change: Change, gates: Passed, states: States) -> Decision | None:
    """Ask for the approval of a promotion; None if the same person asks the same already. Raises ChangeRefused."""
    state = states[model_ref(model)]
    assert isinstance(state, ModelState)
    if _same(change.by, _NOBODY):
        message = "a second person approves what this alias names, so it must be known who asks"
        raise ChangeRefused(Reason(field="by", value=shown(change.by), message=message, remedy="say who you are"))
    waiting = state.requests.get(alias)
    if waiting:
        before = _asked(waiting, states)
        known = (before.version, before.by, before.reason, before.accepts_inconclusive, before.accepts_deprecated)
        if known == (target.version, change.by, change.reason, gates.accepts_inconclusive, gates.accepts_deprecated):
            return None
    assert target.registered_by is not None
    asked = PromotionRequested(
        model=model, alias=alias, version=target.version, previous=state.aliases.get(alias), by=change.by, reason=change.reason,
        request=change.id, registered_by=target.registered_by, verdict=gates.verdict,
        accepts_inconclusive=gates.accepts_inconclusive, accepts_deprecated=gates.accepts_deprecated, supersedes=waiting and waiting.id,
    )  # fmt: skip
    return Decision(model_ref(model), model, asked)


def waiting_for(alias: str, request: str, state: ModelState) -> Waiting:
    """Return the request of `alias` that waits for approval, which must be `request`. Raises ChangeRefused."""
    waiting = state.requests.get(alias)
    if waiting is not None and waiting.id == request:
        return waiting
    now = f"{waiting.id} does, for {waiting.version}" if waiting else "none of this alias does"
    message = f"this request waits for no approval; {now}"
    remedy = "see what became of it: neuroweaver models requests"
    raise ChangeRefused(Reason(field="request", value=shown(request), message=message, remedy=remedy))


def asked_for(waiting: Waiting, approver: str, states: States) -> Asked:
    """Return what `approver` is to approve. Raises ChangeRefused if they asked for it themselves, or give no name."""
    asked = _asked(waiting, states)
    if _same(approver, asked.by) or _same(approver, _NOBODY):
        message = f"{asked.by} asked for it, so somebody else has to approve it, by name"
        raise ChangeRefused(
            Reason(field="by", value=shown(approver), message=message, remedy="let a second person approve it")
        )
    return asked


def decline(model: str, waiting: Waiting, alias: str, change: Change) -> Decision:
    """Decline a request; who asked takes it back so."""
    declined = PromotionDeclined(
        model=model, alias=alias, version=waiting.version, request=waiting.id, by=change.by, reason=change.reason
    )
    return Decision(model_ref(model), model, declined)


def _asked(waiting: Waiting, states: States) -> Asked:
    state = states[request_ref(waiting.id)]
    assert isinstance(state, PromotionRequestState)
    assert state.asked is not None
    return state.asked


def _same(one: str, other: str) -> bool:
    """Whether two names are one, however they are written."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
