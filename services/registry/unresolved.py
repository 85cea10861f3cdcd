"""Defines the refusal of a reference that a `resolve` step cannot follow."""

from schemas.reasons import Reason, shown


class Unresolved(Exception):
    """The reference names nothing that a job can use; the requester gets the reason."""

    def __init__(self, value: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self._value, self._remedy = value, remedy

    def reason(self, field: str) -> Reason:
        """Return the reason; `field` names the reference."""
        return Reason(field=field, value=shown(self._value), message=str(self), remedy=self._remedy)
