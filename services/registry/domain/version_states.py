"""Decides in which state a version is: live, deprecated, archived or deleted. What is still used is neither archived nor deleted.

A deleted version can be restored until its files are removed. Its number stays taken, and what the log says of it stays.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from schemas.models import VersionFilesRemoved, VersionStateChanged
from schemas.reasons import Reason, shown
from schemas.versions import ARCHIVED, DELETED, DEPRECATED, OUT_OF_USE
from services.chassis.kernel.aggregate import Decision
from services.registry.domain.state import ModelState, RegistrationState, model_ref

WITHOUT_NEED: Mapping[str, Sequence[str]] = {ARCHIVED: OUT_OF_USE, DELETED: (DELETED,)}
"""By the state that a version is to have: the states in which a version that continues from it does not need it."""


class StateRefused(Exception):
    """The state of a version does not change; each reason names a use, or what it lacks."""

    def __init__(self, why: str, reasons: Sequence[Reason]) -> None:
        super().__init__("; ".join(map(str, reasons)))
        self.why, self.reasons = why, reasons


def change_state(
    row: RegistrationState,
    model: ModelState,
    state: str,
    *,
    by: str,
    reason: str,
    users: Sequence[str],
    gone: Sequence[str] = (),
) -> Decision | None:
    """Change the state of a version.

    `users` names the versions, jobs, steps and deployments that use it, `gone` the deleted versions from which it continues. Returns
    None if nothing changes. Raises StateRefused.
    """
    made = row.registered
    assert made is not None
    if (state, reason) == (row.state, row.state_reason):
        return None
    if state in OUT_OF_USE and (reasons := [*_uses(made.version, model), *(_used_by(what, state) for what in users)]):
        raise StateRefused("The version is still used", reasons)
    if row.state == DELETED and state != DELETED and (reasons := list(_lacks(row, gone))):
        raise StateRefused("The version cannot be restored", reasons)
    changed = VersionStateChanged(
        model=made.model, version=made.version, job_id=made.lineage.job_id, step=made.lineage.step, state=state,
        previous=row.state, by=by, reason=reason,
    )  # fmt: skip
    return Decision(model_ref(made.model), made.model, changed)


def remove_files(row: RegistrationState, before: datetime) -> Decision | None:
    """Tell that the files of a version are removed that was deleted before `before`; None: they are kept, or that was told before."""
    made = row.registered
    if made is None or row.deleted_at is None or row.deleted_at >= before or row.files_removed_at is not None:
        return None
    removed = VersionFilesRemoved(
        model=made.model, version=made.version, job_id=made.lineage.job_id, step=made.lineage.step, artifact=made.artifact
    )
    return Decision(model_ref(made.model), made.model, removed)


def refusal_to_name(row: RegistrationState, *, accepts_deprecated: bool) -> Reason | None:
    """Return why no alias comes to name a version because of its state; None if one may."""
    assert row.registered is not None
    remedy = "name another version"
    if row.state in OUT_OF_USE:
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
            yield _reason(f"aliases.{alias}", version, "the alias names it", "move or remove the alias first")
    for alias, earlier in sorted(model.earlier.items()):
        if version in earlier:
            message = "the alias can go back to it"
            remedy = "remove the alias, which forgets where it can go back to, or wait until it has moved ten times more"
            yield _reason(f"earlier.{alias}", version, message, remedy)
    for alias, waiting in sorted(model.requests.items()):
        if waiting.version == version:
            yield _reason(f"waiting.{alias}", version, "a promotion of it waits for approval", "decline it first")


def _used_by(what: str, state: str) -> Reason:
    verb = "delete" if state == DELETED else "archive"
    remedy = f"{verb} that version or retire that deployment first, or wait until the job has ended"
    return _reason("used_by", what, "it uses the version", remedy)


def _lacks(row: RegistrationState, gone: Sequence[str]) -> Iterator[Reason]:
    """Return why a deleted version cannot be restored."""
    assert row.registered is not None
    if row.files_removed_at is not None:
        message = f"its files were removed at {row.files_removed_at.isoformat(timespec='seconds')}"
        remedy = "run its job again: neuroweaver models reproduce"
        yield _reason("artifact", row.registered.artifact.uri, message, remedy)
    for version in gone:
        yield _reason("lineage", version, "it continues from this version, which is deleted", "restore that one first")


def _reason(field: str, value: str, message: str, remedy: str) -> Reason:
    return Reason(field=field, value=shown(value), message=message, remedy=remedy)
