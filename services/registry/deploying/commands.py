"""Changes deployments: each change is one transaction under the lock of its deployment, and of its model where an alias is read."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from schemas.deployments import DeploymentRequested
from schemas.models import ModelRegistered
from schemas.results import PREDICTIONS
from schemas.versions import OUT_OF_USE
from services.chassis.kernel.aggregate import Decision, Ref
from services.chassis.kernel.transaction.commands import Command
from services.chassis.serving.problem import Problem
from services.chassis.serving.runtime import Runtime
from services.registry.deploying import statements
from services.registry.deploying.drivers import DriverChoice
from services.registry.deploying.views import ChangeAsked, DeploymentAsked, DeploymentView, RetirementAsked
from services.registry.domain.deployments.deciding import DeploymentRefused, advance, request, retire, retry, roll_back
from services.registry.domain.deployments.state import DeploymentState, deployment_ref
from services.registry.domain.lineage import Artifact, evaluations_of
from services.registry.domain.state import ModelState, model_ref
from services.registry.queries import ModelQueries

OPEN_AT_MOST = 200
"""The most deployments at a time: each pass of the reconciler looks at all of them."""


@dataclass
class _Change:
    """A change of a deployment in the making; its rows are locked."""

    name: str
    command: Command

    @property
    def state(self) -> DeploymentState:
        """The deployment."""
        state = self.command.unit.states[deployment_ref(self.name)]
        assert isinstance(state, DeploymentState)
        return state

    def model(self, name: str) -> ModelState:
        """Return a model that is locked, too."""
        state = self.command.unit.states[model_ref(name)]
        assert isinstance(state, ModelState)
        return state

    def decide(self, decision: Decision | None) -> None:
        """Apply a decision, if there is one."""
        if decision is not None:
            self.command.unit.apply(decision)


@dataclass(frozen=True, slots=True)
class DeploymentCommands:
    """The commands about the deployments of one registry."""

    runtime: Runtime
    models: ModelQueries
    drivers: DriverChoice | None
    """The drivers of this registry; None if it serves nothing."""

    async def view(self, name: str) -> DeploymentView:
        """Return a deployment. Raises a 404 Problem for one that there never was."""
        return DeploymentView.of(await self._row(name))

    async def wishes(self, name: str) -> tuple[DeploymentRequested, ...]:
        """Return what a deployment serves and is to serve, without what is only kept warm; the latest wish of one that was retired or
        given up. Raises a 404 Problem for one that there never was."""
        state = DeploymentState.stored((await self._row(name))[1])
        found = [wish for wish in (state.active, state.target) if wish is not None]
        return tuple(found) or (() if state.wish is None else (state.wish,))

    async def list(self) -> tuple[DeploymentView, ...]:
        """Return every deployment that somebody wants, by name."""
        return tuple(map(DeploymentView.of, await self.runtime.reads.rows(statements.LISTED)))

    async def request(self, asked: DeploymentAsked, if_match: str | None) -> None:
        """Ask a deployment for a version. Raises a 404 Problem for an unknown version, 412 if the deployment has changed, 409 for
        what it cannot do."""
        model, _, wanted = asked.model.partition("@")
        if await self.models.model(model) is None:
            raise _unknown(asked.model)
        if self.drivers is None:
            raise Problem(
                409, "Nothing serves models", f"this registry has no driver, so {asked.name!r} would never be ready"
            )
        driver = self.drivers.chosen(asked.driver)
        async with self._open(asked.name, model_ref(model)) as change:
            _check(change.state, asked.name, if_match)
            if not change.state.open:
                await _check_room(change.command)
            alias = wanted if wanted in change.model(model).aliases else None
            made = await self._version(model, change.model(model).aliases.get(wanted, wanted))
            if asked.follow and alias is None:
                message = f"only an alias can be followed, and {model} has none that is called {wanted or 'nothing'!r}"
                raise DeploymentRefused("follow", True, message, f"name an alias: {model}@ALIAS")
            wish = {
                "deployment": asked.name, "alias": alias, "follow": asked.follow, "driver": driver, "rollout": asked.rollout.rollout,
                "by": asked.by, "reason": asked.reason,
            }  # fmt: skip
            change.decide(request(change.state, _wish(made, wish)))

    async def follow(self, name: str) -> None:
        """Ask a deployment for the version that the alias names now which it follows. Nothing happens if it wants that already."""
        wish = DeploymentState.stored((await self._row(name))[1]).wish
        if wish is None or wish.alias is None:
            return
        async with self._open(name, model_ref(wish.model)) as change:
            now, last = change.model(wish.model).aliases.get(wish.alias), change.state.wish
            if (
                last is None
                or not change.state.open
                or not last.follow
                or last.alias != wish.alias
                or now in (None, last.version)
            ):
                return
            made = await self._version(wish.model, str(now))
            told = {"by": f"{wish.model}@{wish.alias}", "reason": f"the alias names {now}"}
            change.decide(request(change.state, _wish(made, {**last.model_dump(), **told})))

    async def retire(self, name: str, asked: RetirementAsked) -> None:
        """Retire a deployment. Raises a 409 Problem if it is retired."""
        async with self._existing(name) as change:
            change.decide(retire(change.state, asked.by, asked.reason))

    async def roll_back(self, name: str, asked: ChangeAsked) -> None:
        """Give up what is rolled out, or return to the version before. Raises a 409 Problem if there is none."""
        async with self._existing(name) as change:
            change.decide(roll_back(change.state, asked.by, asked.reason, change.command.unit.now))

    async def advance(self, name: str, asked: ChangeAsked) -> None:
        """Give a canary its next share, whatever was measured. Raises a 409 Problem if none is under way."""
        async with self._existing(name) as change:
            change.decide(advance(change.state, asked.by, asked.reason))

    async def retry(self, name: str, asked: ChangeAsked) -> None:
        """Try again what was given up. Raises a 409 Problem if nothing was."""
        async with self._existing(name) as change:
            change.decide(retry(change.state, asked.by, asked.reason))

    @asynccontextmanager
    async def _existing(self, name: str) -> AsyncIterator[_Change]:
        await self._row(name)
        async with self._open(name) as change:
            yield change

    @asynccontextmanager
    async def _open(self, name: str, *more: Ref) -> AsyncIterator[_Change]:
        refs: Iterable[Ref] = (deployment_ref(name), *more)
        async with self.runtime.transact(refs) as command:
            try:
                yield _Change(name, command)
            except DeploymentRefused as refused:
                raise Problem.of(409, "The deployment cannot do that", [refused.reason]) from refused
            await command.connection.execute(statements.NOTIFY, {"name": name})

    async def _row(self, name: str) -> Any:
        row = await self.runtime.reads.row(statements.SHOWN, name)
        if row is None:
            raise Problem(
                404, "Not found", f"there is no deployment {name!r}; GET /api/v1/deployments lists those that there are"
            )
        return row

    async def _version(self, model: str, wanted: str) -> ModelRegistered:
        found = await self.models.version(model, wanted)
        if found is None:
            raise _unknown(f"{model}@{wanted}")
        made = ModelRegistered.model_validate_json(found.registered)
        if made.purpose != "answers":
            message = f"the versions of {model} are for {made.purpose}, and write no answers"
            raise DeploymentRefused("model", model, message, "deploy a version of a model that writes answers")
        if found.state in OUT_OF_USE:
            message, remedy = (
                f"it is {found.state}: {found.state_reason}",
                "deploy another version, or make this one live again",
            )
            raise DeploymentRefused("model", f"{model}@{made.version}", message, remedy)
        return made


def _wish(made: ModelRegistered, wish: Mapping[str, object]) -> DeploymentRequested:
    evaluations = evaluations_of(Artifact(made.kind, made.artifact), made.lineage.results)
    about = {
        "predictions": evaluations[0].outputs[PREDICTIONS] if evaluations else None, "model": made.model, "generation": 0, "version": made.version, "artifact": made.artifact, "kind": made.kind,
        "base_model": made.lineage.base_model, "base_model_sha256": made.lineage.base_model_sha256,
    }  # fmt: skip
    return DeploymentRequested.model_validate({**wish, **about})


async def _check_room(command: Command) -> None:
    count = (await command.connection.execute(statements.COUNT_OPEN)).scalar_one()
    if count >= OPEN_AT_MOST:
        raise DeploymentRefused(
            "name", None, f"there are {OPEN_AT_MOST} deployments already", "retire one that nobody asks"
        )


def _check(state: DeploymentState, name: str, if_match: str | None) -> None:
    now = etag(0 if state.wish is None else state.wish.generation)
    if if_match is not None and if_match != now:
        detail = f"deployment {name!r} is at generation {now}, not at {if_match}; read it again, then ask again if it is still wanted"
        raise Problem(412, "The deployment has changed", detail)


def etag(generation: int) -> str:
    """Return the ETag of a deployment."""
    return f'"{generation}"'


def _unknown(reference: str) -> Problem:
    return Problem(404, "Not found", f"there is no version {reference!r}; GET /api/v1/models lists those that there are")
