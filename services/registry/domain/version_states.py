"""Decides in which state a version is: live, deprecated or archived. What is still used is not archived."""

from collections.abc import Iterator, Sequence

from schemas.models import VersionStateChanged
from schemas.reasons import Reason, shown
from schemas.versions import ARCHIVED, DEPRECATED
from services.chassis.kernel.aggregate import Decision
from services.registry.domain.state import ModelState, RegistrationState, model_ref


class StillUsed(Exception):
    """A version that is to be archived is still used; each reason names one use."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__("; ".join(map(str, reasons)))
        self.reasons = reasons


def change_state(
    row: RegistrationState, model: ModelState, state: str, *, by: str, reason: str, users: Sequence[str]
) -> Decision | None:
    """Change the state of a version; `users` names the versions, steps and deployments that use it.

    Returns None if nothing changes. Raises StillUsed.
    """
    made = row.registered
    assert made is not None
    if (state, reason) == (row.state, row.state_reason):
        return None
    if state == ARCHIVED and (reasons := [*_uses(made.version, model), *map(_used_by, users)]):
        raise StillUsed(reasons)
    changed = VersionStateChanged(
        model=made.model, version=made.version, job_id=made.lineage.job_id, step=made.lineage.step, state=state,
        previous=row.state, by=by, reason=reason,
    )  # fmt: skip
    return Decision(model_ref(made.model), made.model, changed)


def refusal_to_name(row: RegistrationState, *, accepts_deprecated: bool) -> Reason | None:
    """Return why no alias comes to name a version because of its state; None if one may."""
    assert row.registered is not None
    remedy = "name another version"
    if row.state == ARCHIVED:
        remedy = f"make it live again, or {remedy}"
    elif row.state != DEPRECATED or accepts_deprecated:
        return None
    else:
        remedy = f"{remedy}, or let a person accept it: accept_deprecated, with a reason"
    message = f"the version is {row.state}: {row.state_reason}"
    return Reason(field="version", value=shown(row.registered.version), message=message, remedy=remedy)


def _uses(version: str, model: ModelState) -> Iterator[Reason]:
    """Return how the aliases of its model use a version."""
    for alias, named in sorted(model.aliases.items()):
        if named == version:
            yield _use(f"aliases.{alias}", version, "the alias names it", "move or remove the alias first")
    for alias, earlier in sorted(model.earlier.items()):
        if version in earlier:
            message = "the alias can go back to it"
            remedy = "remove the alias, which forgets where it can go back to, or wait until it has moved ten times more"
            yield _use(f"earlier.{alias}", version, message, remedy)
    for alias, waiting in sorted(model.requests.items()):
        if waiting.version == version:
            yield _use(f"waiting.{alias}", version, "a promotion of it waits for approval", "decline it first")


def _used_by(what: str) -> Reason:
    remedy = "archive that version or retire that deployment first, or wait until the step has ended"
    return _use("used_by", what, "it uses the version", remedy)


def _use(field: str, value: str, message: str, remedy: str) -> Reason:
    return Reason(field=field, value=shown(value), message=message, remedy=remedy)
