"""Defines the states of the registry's aggregates: a model, each of its versions, and each move of its aliases.

A model's row is rewritten with each registration and each move, so its state is bounded: versions and moves have rows of their
own. Each row is written by own events of the registry only, so columns commute (rule 2).
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from schemas.base import Frozen
from schemas.models import AliasMoved, AliasRemoved, Lineage, ModelRegistered, ModelRolledBack
from services.chassis.kernel.aggregate import AggregateType, Ref, State
from services.registry.domain.versioning import Version

MODEL = "model"
REGISTRATION = "registration"
ALIAS_MOVE = "alias_move"
NEWEST = 20
"""How many of its newest versions a model's state has, for messages."""
EARLIER = 10
"""How many earlier versions of an alias can be gone back to, one after the other."""


class ModelState(State):
    """A model; the state is bounded, however many versions it has and however often its aliases moved."""

    count: int = Field(default=0, description="Number of versions.")
    highest: str | None = Field(default=None, description="The highest version; null if there is none.")
    newest: tuple[str, ...] = Field(
        default=(), description="The versions registered last, in the order of their registration."
    )
    latest: Lineage | None = Field(default=None, description="Where the last version comes from, without results of steps.")
    aliases: dict[str, str] = Field(default_factory=dict, description="Version by alias.")
    earlier: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="By alias, the good versions that it named before, the last one last. A version that it went back from is none.",
    )
    aliases_at: int = Field(default=0, description="Number of the latest event that changed an alias.")

    def registered(self, made: ModelRegistered) -> Mapping[str, Any]:
        """Return the fields after a registration."""
        version = Version.parse(made.version)
        highest = version if self.highest is None else max(version, Version.parse(self.highest))
        return {
            "count": self.count + 1,
            "highest": str(highest),
            "newest": (*self.newest, made.version)[-NEWEST:],
            "latest": made.lineage.model_copy(update={"results": {}}),
        }

    def moved(self, move: AliasMoved | AliasRemoved, sequence: int) -> Mapping[str, Any]:
        """Return the fields after an alias moved or was removed."""
        aliases, earlier = dict(self.aliases), dict(self.earlier)
        if isinstance(move, AliasRemoved):
            aliases.pop(move.alias, None)
            earlier.pop(move.alias, None)
        else:
            aliases[move.alias] = move.version
            earlier[move.alias] = _earlier(earlier.get(move.alias, ()), move)
        return {"aliases": aliases, "earlier": earlier, "aliases_at": sequence}


def _earlier(before: tuple[str, ...], move: AliasMoved) -> tuple[str, ...]:
    if isinstance(move, ModelRolledBack):
        return before[: before.index(move.version)] if move.version in before else before
    left = tuple(version for version in before if version not in (move.version, move.previous))
    return (*left, *([move.previous] if move.previous not in (None, move.version) else []))[-EARLIER:]


class RegistrationState(State):
    """One version."""

    registered: ModelRegistered | None = None
    registered_at: datetime | None = None


class AliasMoveState(State):
    """One move of an alias; it never changes."""

    model: str | None = None
    move: "AliasMove | None" = None


class AliasMove(Frozen):
    """A move of an alias: who moved it where, when and why."""

    alias: str
    kind: str = Field(description="promoted, rolled_back or removed.")
    version: str | None = Field(description="The version that it names from then on; null if it was removed.")
    previous: str | None = Field(description="The version that it named before; null if it was new.")
    at: datetime
    by: str = Field(description="Who moved it.")
    reason: str = Field(description="Why it was moved; may be empty.")


class Models(AggregateType):
    """How models are stored for lists: the model's row has the aliases by version, since the versions' rows do not."""

    def __init__(self) -> None:
        super().__init__(MODEL, ModelState, {"named": "jsonb"})

    def values(self, state: ModelState) -> Mapping[str, Any]:
        """Aliases by the version that they name, in alphabetical order: a pure function of the state."""
        named: dict[str, list[str]] = {}
        for alias, version in sorted(state.aliases.items()):
            named.setdefault(version, []).append(alias)
        return {"named": json.dumps(named)}


class Registrations(AggregateType):
    """How versions are stored for lists."""

    def __init__(self) -> None:
        columns = {
            "model": "text", "version": "text", "job_id": "text", "requester": "text", "base_model": "text",
            "dataset_sha256": "text", "purpose": "text", "registered_at": "timestamptz",
        }  # fmt: skip
        super().__init__(REGISTRATION, RegistrationState, columns)

    def values(self, state: RegistrationState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        made = state.registered
        return {
            "model": made and made.model,
            "version": made and made.version,
            "job_id": made and made.lineage.job_id,
            "requester": made and made.lineage.requester,
            "base_model": made and made.lineage.base_model,
            "dataset_sha256": made and made.lineage.dataset_sha256,
            "purpose": made and made.purpose,
            "registered_at": state.registered_at,
        }


class AliasMoves(AggregateType):
    """How moves of aliases are stored for lists."""

    def __init__(self) -> None:
        super().__init__(ALIAS_MOVE, AliasMoveState, {"model": "text", "alias": "text", "moved_at": "timestamptz"})

    def values(self, state: AliasMoveState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        move = state.move
        return {"model": state.model, "alias": move and move.alias, "moved_at": move and move.at}


def model_ref(name: str) -> Ref:
    """Return the reference to a model."""
    return Ref(MODEL, name)


def registration_ref(job_id: str, step: str) -> Ref:
    """Return the reference to the version that a job's step registers; a job id has no slash, so the key is unambiguous."""
    return Ref(REGISTRATION, f"{job_id}/{step}")


def move_ref(move: str) -> Ref:
    """Return the reference to a move by its id."""
    return Ref(ALIAS_MOVE, move)


def move_of_step(job_id: str, step: str) -> str:
    """Return the id of the move that a job's step makes."""
    return f"{job_id}/{step}"
