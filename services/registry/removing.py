"""Tells that the files of deleted versions are removed, before retention removes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kernel.aggregate import Ref
from services.chassis.serving.runtime import Runtime
from services.chassis.settings import ServiceSettings
from services.registry import statements
from services.registry.domain.state import REGISTRATION, RegistrationState, model_ref
from services.registry.domain.version_states import remove_files


@dataclass(frozen=True, slots=True)
class FileRemovals:
    """The removals of files of one registry's versions."""

    runtime: Runtime

    @property
    def service(self) -> str:
        """Its name."""
        return self.runtime.service

    @property
    def settings(self) -> ServiceSettings:
        """Its settings, with the store and the policy."""
        return self.runtime.settings

    @property
    def engine(self) -> AsyncEngine:
        """The engine of its database."""
        return self.runtime.engine

    async def release(self, digests: Sequence[str], seconds: float) -> Mapping[str, bool]:
        """Tell it of every version that has one of these artifacts and was deleted more than `seconds` ago.

        Returns by digest whether the artifact may be removed: no version has it, or all that have it have been told of.
        """
        async with self.engine.connect() as connection:
            rows = (await connection.execute(statements.OF_ARTIFACT, {"digests": list(digests)})).all()
        made: dict[str, dict[Ref, Ref]] = {digest: {} for digest in digests}
        for digest, model, key in rows:
            made[digest][Ref(REGISTRATION, key)] = model_ref(model)
        return {digest: await self._told(versions, seconds) for digest, versions in made.items()}

    async def _told(self, versions: Mapping[Ref, Ref], seconds: float) -> bool:
        """Tell it of all of these versions, or of none."""
        if not versions:
            return True
        async with self.runtime.transact({*versions, *versions.values()}) as command:
            rows = [command.unit.states[ref] for ref in versions]
            made = [row for row in rows if isinstance(row, RegistrationState)]
            before = command.unit.now - timedelta(seconds=seconds)
            if not all(row.deleted_at is not None and row.deleted_at < before for row in made):
                return False
            for row in made:
                if decision := remove_files(row, before):
                    command.unit.apply(decision)
        return True
