"""One answer for all services: does what they say follow from the log?"""

import asyncio
from collections.abc import Sequence

from pydantic import Field

from schemas.base import Frozen
from services.chassis.replay.projection import Projection
from services.chassis.replay.rebuild import Verification, verify
from services.cli.projections import bar


class ServiceVerdict(Frozen):
    """The result of verifying one service."""

    tables: int = Field(description="Tables that were compared.")
    rows: int = Field(description="Live rows in them.")
    differences: int = Field(description="Rows that differ from the log.")


class AuditVerdict(Frozen):
    """The result of `audit verify`."""

    services: dict[str, ServiceVerdict]

    @property
    def differences(self) -> int:
        """The number of differing rows of all services."""
        return sum(verdict.differences for verdict in self.services.values())


def verify_all(projections: Sequence[Projection], *, accept_incomplete: bool) -> list[Verification]:
    """Verify the services one after the other. Raises the errors of `verify`."""
    found = []
    for projection in projections:
        with bar(projection.service) as on_progress:
            found.append(asyncio.run(verify(projection, accept_incomplete=accept_incomplete, on_progress=on_progress)))
    return found


def verdict_of(found: Sequence[Verification]) -> AuditVerdict:
    """Summarise a verification for programs."""
    return AuditVerdict(
        services={
            item.service: ServiceVerdict(tables=len(item.tables), rows=item.rows, differences=item.differences)
            for item in found
        }
    )
