"""Decides that the rules by which an alias moves are set."""

from schemas.gates import AliasPolicy
from schemas.models import AliasPolicySet
from schemas.reasons import Reason, shown
from services.chassis.kernel.aggregate import Decision
from services.registry.domain.aliases import Change, ChangeRefused, refusal
from services.registry.domain.state import ModelState, model_ref

POLICIES_AT_MOST = 20
"""The most aliases of a model with a policy, so that its state is bounded."""


def set_policy(model: str, alias: str, policy: AliasPolicy | None, state: ModelState, change: Change) -> Decision | None:
    """Set the policy of an alias, which need not name a version yet; None removes it. Returns None if nothing changes.

    Without approval in the policy, no request waits for it any more.
    Raises ChangeRefused.
    """
    if state.policies.get(alias) == policy:
        return None
    if reason := refusal(alias, state):
        raise ChangeRefused(reason)
    if policy is not None and alias not in state.policies and len(state.policies) >= POLICIES_AT_MOST:
        message = f"{POLICIES_AT_MOST} aliases of the model have a policy already"
        raise ChangeRefused(
            Reason(
                field="alias", value=shown(alias), message=message, remedy="remove the policy of an alias that needs none"
            )
        )
    rules = AliasPolicySet(
        model=model, alias=alias, policy=policy, by=change.by, reason=change.reason,
        supersedes=None if policy and policy.approval else state.waiting(alias),
    )  # fmt: skip
    return Decision(model_ref(model), model, rules)
