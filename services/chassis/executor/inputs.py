"""Turns the error of a missing or altered input artifact into a user fault, which is not retried and names artifact and digests."""

from collections.abc import Mapping

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepFault
from schemas.reasons import Reason
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, ArtifactErased
from services.chassis.storage.stores import chain

_REMEDY = (
    "restore the artifact from a copy and retry the job, or send it under a new job_id, so that the step that made it runs again; "
    "and check who can write to the artifact store"
)


def corrupt_input(error: BaseException, inputs: Mapping[str, ArtifactRef]) -> StepFault | None:
    """The fault if `error` was caused by a missing or altered artifact; otherwise None.

    Rows that are erased while a step reads them are no such fault: its next attempt reads what remains.
    """
    corrupt = next((cause for cause in chain(error) if isinstance(cause, ArtifactCorrupt)), None)
    if corrupt is None or isinstance(corrupt, ArtifactErased):
        return None
    name = next((name for name, ref in inputs.items() if ref.uri == corrupt.uri), None)
    reason = Reason(
        field="inputs" if name is None else f"inputs.{name}", value=corrupt.uri, message=str(corrupt), remedy=_REMEDY
    )
    return StepFault(cause="user", message=str(reason), reasons=(reason,))
