"""Gives each kind of step that the registry executes to its runner."""

from collections.abc import Mapping

from services.chassis.executor.runner import Outcome, StepRunner, Work, WorkContext
from services.chassis.serving.reads import Reads
from services.registry.datasets.queries import DatasetQueries
from services.registry.queries import ModelQueries
from services.registry.register import Registrar
from services.registry.resolve import Resolver


class ByKind:
    """A StepRunner that gives a step to the runner of its kind."""

    def __init__(self, runners: Mapping[str, StepRunner]) -> None:
        self._runners = runners

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Run the step."""
        return await self._runners[work.request.kind].run(work, context)


def registry_steps(reads: Reads) -> StepRunner:
    """Return the runner of all steps of the registry, which reads its own rows."""
    return ByKind({"register": Registrar(), "resolve": Resolver(ModelQueries(reads), DatasetQueries(reads))})
