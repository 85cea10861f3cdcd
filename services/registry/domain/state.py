"""Defines the states of the registry's aggregates: a model, each of its versions, each move of its aliases, each check of gates.

A model's row is rewritten with each registration and each move, so its state is bounded: versions, moves and checks have rows of
their own. Each row is written by own events of the registry only, so columns commute (rule 2).
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import Field

from schemas.base import Frozen
from schemas.gates import AliasPolicy, GateVerdict
from schemas.models import (
    AliasMoved,
    AliasPolicySet,
    AliasRemoved,
    Lineage,
    ModelRegistered,
    ModelRolledBack,
    PromotionDeclined,
    PromotionRequested,
)
from schemas.versions import DELETED, LIVE
from services.chassis.kernel.aggregate import AggregateType, Ref, State
from services.registry.domain.requests import Waiting
from services.registry.domain.versioning import Version, with_version

_T = TypeVar("_T")

MODEL = "model"
REGISTRATION = "registration"
ALIAS_MOVE = "alias_move"
GATE_CHECK = "gate_check"
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
    latest: Lineage | None = Field(
        default=None, description="Where the highest version comes from, without results of steps."
    )
    lines: dict[str, str] = Field(
        default_factory=dict, description="The highest version by MAJOR number, of the highest such numbers."
    )
    aliases: dict[str, str] = Field(default_factory=dict, description="Version by alias.")
    earlier: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="By alias, the good versions that it named before, the last one last. A version that it went back from is none.",
    )
    aliases_at: int = Field(default=0, description="Number of the latest event that changed an alias or its policy.")
    left: dict[str, dict[str, datetime]] = Field(
        default_factory=dict, description="By alias, when it left each of the earlier versions, as far as that is known."
    )
    holders: dict[str, str] = Field(
        default_factory=dict,
        description="By alias, job and step that registered the version which it names, `job/step`, as far as that is known.",
    )
    policies: dict[str, AliasPolicy] = Field(default_factory=dict, description="The rules by which each alias moves.")
    requests: dict[str, Waiting] = Field(
        default_factory=dict,
        description="By alias, the request that waits for approval; only aliases whose policy needs it.",
    )

    def registered(self, made: ModelRegistered) -> Mapping[str, Any]:
        """Return the fields after a registration."""
        version = Version.parse(made.version)
        highest = version if self.highest is None else max(version, Version.parse(self.highest))
        return {
            "count": self.count + 1,
            "highest": str(highest),
            "newest": (*self.newest, made.version)[-NEWEST:],
            "latest": made.lineage.model_copy(update={"results": {}}) if highest == version else self.latest,
            "lines": with_version(self.lines, version),
        }

    def moved(self, move: AliasMoved | AliasRemoved, sequence: int, at: datetime) -> Mapping[str, Any]:
        """Return the fields after an alias moved or was removed."""
        alias = move.alias
        aliases, earlier, left, holders = (
            _without(alias, field) for field in (self.aliases, self.earlier, self.left, self.holders)
        )
        if isinstance(move, AliasMoved):
            aliases[alias] = move.version
            earlier[alias] = before = _earlier(self.earlier.get(alias, ()), move)
            known = {**self.left.get(alias, {}), **({move.previous: at} if move.previous else {})}
            left[alias] = {version: known[version] for version in before if version in known}
            if move.registered_by is not None:
                holders[alias] = move.registered_by
        requests = _without(alias, self.requests)
        return {
            "aliases": aliases, "earlier": earlier, "left": left, "holders": holders, "requests": requests,
            "aliases_at": sequence,
        }  # fmt: skip

    def ruled(self, rules: AliasPolicySet, sequence: int) -> Mapping[str, Any]:
        """Return the fields after the policy of an alias was set."""
        policies = _without(rules.alias, self.policies)
        if rules.policy is not None:
            policies[rules.alias] = rules.policy
        requests = self.requests if rules.policy and rules.policy.approval else _without(rules.alias, self.requests)
        return {"policies": policies, "requests": requests, "aliases_at": sequence}

    def asked(self, asked: PromotionRequested, at: datetime) -> Mapping[str, Any]:
        """Return the fields after somebody asked for approval."""
        waiting = Waiting(id=asked.request, version=asked.version, by=asked.by, at=at)
        return {"requests": {**self.requests, asked.alias: waiting}}

    def declined(self, declined: PromotionDeclined) -> Mapping[str, Any]:
        """Return the fields after a request was declined."""
        return {"requests": _without(declined.alias, self.requests)}

    def waiting(self, alias: str) -> str | None:
        """Return the id of the request of an alias that waits for approval; None if none does."""
        waiting = self.requests.get(alias)
        return waiting.id if waiting else None

    def policy(self, alias: str) -> AliasPolicy:
        """Return the rules by which an alias moves."""
        return self.policies.get(alias, AliasPolicy())

    def may_go_back(self, alias: str, version: str, now: datetime) -> bool:
        """Return whether `alias` left `version` so shortly ago that it goes back without gates."""
        left = self.left.get(alias, {}).get(version)
        return left is not None and now - left <= timedelta(days=self.policy(alias).rollback_days)


def _without(alias: str, field: Mapping[str, _T]) -> dict[str, _T]:
    return {name: value for name, value in field.items() if name != alias}


def _earlier(before: tuple[str, ...], move: AliasMoved) -> tuple[str, ...]:
    if isinstance(move, ModelRolledBack):
        return before[: before.index(move.version)] if move.version in before else before
    left = tuple(version for version in before if version not in (move.version, move.previous))
    return (*left, *([move.previous] if move.previous not in (None, move.version) else []))[-EARLIER:]


class RegistrationState(State):
    """One version."""

    registered: ModelRegistered | None = None
    registered_at: datetime | None = None
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    state: str = LIVE
    state_reason: str = ""
    deleted_at: datetime | None = Field(default=None, description="When it was deleted; null: it is not.")
    files_removed_at: datetime | None = Field(default=None, description="When its files were removed; null: they are kept.")
    erased: dict[str, "Learnt"] = Field(default_factory=dict)
    """By data set, `name@digest`, the erased rows of it that the version learnt from."""

    def put(self, state: str, reason: str, at: datetime) -> Mapping[str, Any]:
        """Return the fields after the state of the version changed."""
        return {"state": state, "state_reason": reason, "deleted_at": at if state == DELETED else None}

    @property
    def erased_rows(self) -> int:
        """The number of all erased rows that it learnt from."""
        return sum(learnt.rows for learnt in self.erased.values())


class Learnt(Frozen):
    """The erased rows of one data set that a version learnt from."""

    rows: int = Field(description="How many; where a ledger could not be read, they count as learnt.")
    through: str | None = Field(
        description="The version that it continues from and that learnt from them; null if its own job did."
    )
    at: datetime = Field(description="When that was found last.")
    by: str = Field(description="Who erased rows of the data set last.")
    reason: str = Field(description="Why.")


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
    verdict: str | None = Field(
        default=None,
        description="What the gates said: passed, or inconclusive, which a person accepted; null: none was asked.",
    )
    request: str | None = Field(default=None, description="The request that was approved; null if none was needed.")
    approved_by: str | None = Field(default=None, description="Who approved it; null if no approval was needed.")


class GateCheckState(State):
    """One check of the gates of an alias; it never changes."""

    model: str | None = None
    check: "GateCheck | None" = None


class GateCheck(Frozen):
    """What the gates of an alias said of a version, with the evidence."""

    id: str = Field(description="Id of the check; a move that followed has the same id.")
    alias: str
    version: str = Field(description="The version that somebody wanted the alias to name.")
    holder: str | None = Field(description="The version that the alias named then; null for none.")
    verdict: str = Field(description="failed if one of the gates failed, else inconclusive if one was, else passed.")
    gates: tuple[GateVerdict, ...] = Field(description="What each gate said, and what it compared.")
    at: datetime
    by: str = Field(description="Who wanted the alias to move.")


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
            "dataset_sha256": "text", "purpose": "text", "registered_at": "timestamptz", "erased_rows": "bigint",
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
            "erased_rows": state.erased_rows,
        }


class AliasMoves(AggregateType):
    """How moves of aliases are stored for lists."""

    def __init__(self) -> None:
        super().__init__(ALIAS_MOVE, AliasMoveState, {"model": "text", "alias": "text", "moved_at": "timestamptz"})

    def values(self, state: AliasMoveState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        move = state.move
        return {"model": state.model, "alias": move and move.alias, "moved_at": move and move.at}


class GateChecks(AggregateType):
    """How checks of gates are stored for lists."""

    def __init__(self) -> None:
        columns = {"model": "text", "alias": "text", "version": "text", "checked_at": "timestamptz"}
        super().__init__(GATE_CHECK, GateCheckState, columns)

    def values(self, state: GateCheckState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        check = state.check
        return {
            "model": state.model,
            "alias": check and check.alias,
            "version": check and check.version,
            "checked_at": check and check.at,
        }


def model_ref(name: str) -> Ref:
    """Return the reference to a model."""
    return Ref(MODEL, name)


def registration_ref(job_id: str, step: str) -> Ref:
    """Return the reference to the version that a job's step registers; a job id has no slash, so the key is unambiguous."""
    return Ref(REGISTRATION, registered_by(job_id, step))


def registered_by(job_id: str, step: str) -> str:
    """Return the key of that version's row."""
    return f"{job_id}/{step}"


def move_ref(move: str) -> Ref:
    """Return the reference to a move by its id."""
    return Ref(ALIAS_MOVE, move)


def check_ref(check: str) -> Ref:
    """Return the reference to a check of gates by its id."""
    return Ref(GATE_CHECK, check)


def move_of_step(job_id: str, step: str) -> str:
    """Return the id of the move that a job's step makes: the key of its version."""
    return registered_by(job_id, step)
