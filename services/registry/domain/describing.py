"""Decides how a version is described: by a text and by tags, which may change, unlike the version."""

from collections.abc import Mapping

from schemas.models import VersionDescribed
from schemas.reasons import Reason
from services.chassis.kernel.aggregate import Decision
from services.registry.domain.state import RegistrationState, model_ref

TAGS_AT_MOST = 20
"""The most tags of a version."""


class TooManyTags(Exception):
    """A version would have more tags than it can; the caller gets the reason."""

    def __init__(self, wanted: int) -> None:
        message = f"the version would have {wanted} tags, and has {TAGS_AT_MOST} at most"
        remedy = "remove tags that nobody uses: a tag whose value is null is removed"
        self.reason = Reason(field="body.tags", value=str(wanted), message=message, remedy=remedy)
        super().__init__(str(self.reason))


def describe(state: RegistrationState, description: str | None, tags: Mapping[str, str | None], by: str) -> Decision | None:
    """Set the description of a version unless it is None, and each of `tags`, or remove it where its value is None.

    Returns None if nothing changes. Raises TooManyTags.
    """
    made = state.registered
    assert made is not None
    merged = {**state.tags, **tags}
    kept = {name: value for name, value in sorted(merged.items()) if value is not None}
    if len(kept) > TAGS_AT_MOST:
        raise TooManyTags(len(kept))
    text = state.description if description is None else description
    if (text, kept) == (state.description, state.tags):
        return None
    told = VersionDescribed(
        model=made.model, version=made.version, job_id=made.lineage.job_id, step=made.lineage.step, description=text,
        tags=kept, by=by,
    )  # fmt: skip
    return Decision(model_ref(made.model), made.model, told)
