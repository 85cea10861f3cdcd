"""Defines the HTTP API's views of models, documented for /docs; a list has summaries, a single get has everything."""

import json
from datetime import datetime
from typing import Annotated

from pydantic import Field, TypeAdapter

from schemas.artifacts import ArtifactRef
from schemas.base import NAME_PATTERN, Frozen, Name, Storable, Strict
from schemas.models import Lineage, ModelRegistered
from schemas.versions import LIVE, STATE_WORDS
from services.registry.domain.lineage import Artifact, is_evaluated
from services.registry.domain.requests import Asked, Outcome, Waiting
from services.registry.domain.state import AliasMove, Learnt
from services.registry.queries import ModelRow, StoredVersion, VersionState

_LEARNT = TypeAdapter(dict[str, Learnt])


class _Named(Frozen):
    """The first fields of every view of a version."""

    id: str = Field(description="Id of the version, `name@version`, as in GET /models/{model_id}.")
    name: str
    version: str = Field(description="Semantic version.")
    aliases: tuple[str, ...] = Field(description="Aliases that name this version now.")
    registered_at: datetime
    purpose: str = Field(
        default="answers",
        description="What it is for. answers: it writes answers; scores: it is a reward model, a judge that scores answers and "
        "writes none.",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Value by name, as people set them.")
    state: str = Field(default=LIVE, description=STATE_WORDS)
    erased_rows: int = Field(default=0, description="How many rows that were erased it learnt from; nothing is unlearnt.")


class VersionView(_Named):
    """One version of a model; only its aliases, its description, its tags, its state and what it says of erased rows can change."""

    description: str = Field(default="", description="What people say about the version.")
    state_reason: str = Field(default="", description="Why it is in its state; empty if that never changed.")
    files_removed_at: datetime | None = Field(
        default=None, description="When the files of a deleted version were removed; null: they are kept."
    )
    erased: dict[str, Learnt] = Field(
        default_factory=dict, description="By data set, `name@digest`, the erased rows of it that the version learnt from."
    )
    artifact: ArtifactRef
    metrics: dict[str, float | None] = Field(description="Metrics of the evaluation of this version; null: not measurable.")
    evaluated: bool = Field(
        description="Whether a step before its registration evaluated it; `metrics` has no results of an evaluation if not."
    )
    lineage: Lineage
    kind: str = Field(description="What the artifact is: `adapter` or `model`.")
    parent: ArtifactRef | None = Field(
        description="The adapter or model from which this one was compressed; null if it was not."
    )
    parent_metrics: dict[str, float | None] = Field(description="Metrics of the evaluation of the parent.")

    @classmethod
    def of(cls, made: ModelRegistered, registered_at: datetime, aliases: tuple[str, ...]) -> "VersionView":
        """Return the view of a version that `aliases` name."""
        return cls(
            id=f"{made.model}@{made.version}",
            name=made.model,
            version=made.version,
            aliases=aliases,
            registered_at=registered_at,
            artifact=made.artifact,
            metrics=made.metrics,
            evaluated=_evaluated(made),
            purpose=made.purpose,
            lineage=made.lineage,
            kind=made.kind,
            parent=made.parent,
            parent_metrics=made.parent_metrics,
        )


def _evaluated(made: ModelRegistered) -> bool:
    if made.evaluated is not None:
        return made.evaluated
    return is_evaluated(Artifact(made.kind, made.artifact), made.lineage.results)


def stored_version(stored: StoredVersion) -> VersionView:
    """Return the view of what the rows have."""
    made = ModelRegistered.model_validate_json(stored.registered)
    view = VersionView.of(made, stored.registered_at, tuple(json.loads(stored.aliases)))
    told = {"description": stored.description or "", "tags": json.loads(stored.tags or "{}")}
    state = {
        "state": stored.state or LIVE,
        "state_reason": stored.state_reason or "",
        "files_removed_at": stored.files_removed_at,
    }
    erased = _LEARNT.validate_json(stored.erased or "{}")
    rows = {"erased": erased, "erased_rows": sum(one.rows for one in erased.values())}
    return view.model_copy(update={**told, **state, **rows})


class VersionSummary(_Named):
    """One version in a list; GET /models/{model_id} has its artifact and its lineage."""

    job_id: str = Field(description="The job that made the version.")
    requester: str = Field(description="Who requested the job.")
    base_model: str = Field(description="Reference of the base model.")
    dataset_sha256: str | None = Field(description="Digest of the data-set snapshot.")
    started_from: str | None = Field(
        default=None, description="The registered version that training started from, `name@version`; null for none."
    )
    metrics: dict[str, float | None] = Field(description="Metrics of the evaluation of this version; null: not measurable.")


class VersionPage(Frozen):
    """A page of versions, newest first."""

    items: tuple[VersionSummary, ...]
    next: str | None = Field(description="Cursor of the next page; null at the end.")


class AliasesView(Frozen):
    """A model's aliases, where each can go back to, and how they moved last."""

    name: str
    sequence: int = Field(description="Number of the latest event that changed an alias or its policy, which is the ETag.")
    aliases: dict[str, str] = Field(description="Version by alias.")
    earlier: dict[str, tuple[str, ...]] = Field(
        description="By alias, the versions that a rollback can go back to, the last one last."
    )
    waiting: dict[str, Waiting] = Field(
        default_factory=dict, description="By alias, the request that waits until a second person approves it."
    )
    moves: tuple[AliasMove, ...] = Field(description="The newest moves, newest first; GET /models/{name}/moves has all.")

    @classmethod
    def of(cls, row: ModelRow) -> "AliasesView":
        """Return the view of a model's row."""
        state = row.state
        moves = tuple(map(AliasMove.model_validate_json, row.moves))
        earlier = {alias: versions for alias, versions in state.earlier.items() if versions}
        return cls(
            name=row.name, sequence=state.aliases_at, aliases=state.aliases, earlier=earlier, waiting=state.requests, moves=moves
        )  # fmt: skip


class MovePage(Frozen):
    """A page of moves of a model's aliases, newest first."""

    items: tuple[AliasMove, ...]
    next: str | None = Field(description="Cursor of the next page; null at the end.")


By = Annotated[Storable, Field(min_length=1, max_length=256, description="Who changes the alias.")]
Why = Annotated[Storable, Field(max_length=2000, description="Why it is changed.")]


Accepts = Annotated[
    bool,
    Field(
        description="Whether the alias moves although the gates are inconclusive: a person answers for it, with a reason."
    ),
]


AcceptsDeprecated = Annotated[
    bool,
    Field(
        description="Whether the alias moves although the version is deprecated: a person answers for it, with a reason."
    ),
]


class AliasTarget(Strict):
    """The version to which an alias is moved."""

    version: Name = Field(description="A version of the model.")
    by: By = "unknown"
    reason: Why = ""
    accept_inconclusive: Accepts = False
    accept_deprecated: AcceptsDeprecated = False


class RollbackTarget(Strict):
    """The version to which an alias goes back."""

    version: Name | None = Field(
        default=None, description="One of the versions that the alias named before; default: the last one."
    )
    by: By = "unknown"
    reason: Annotated[Why, Field(min_length=1)]
    accept_inconclusive: Accepts = False


class PromotionRequest(Asked, Outcome):
    """A request of a promotion that needs approval, and what became of it."""


class RequestPage(Frozen):
    """A page of requests of promotions, newest first."""

    items: tuple[PromotionRequest, ...]
    next: str | None = Field(description="Cursor of the next page; null at the end.")


RequestId = Annotated[
    Storable, Field(min_length=1, max_length=257, description="Id of the request, which must still wait.")
]
Approver = Annotated[Storable, Field(min_length=1, max_length=256, description="Who approves or declines it.")]


class ApprovalAsked(Strict):
    """Somebody approves a request."""

    request: RequestId
    by: Approver
    reason: Why = ""
    accept_inconclusive: Accepts = False
    accept_deprecated: AcceptsDeprecated = False


class DeclineAsked(Strict):
    """Somebody declines a request, or takes their own back."""

    request: RequestId
    by: Approver
    reason: Annotated[Why, Field(min_length=1)]


class RemovalAsked(Frozen):
    """The query that removes an alias."""

    by: By = "unknown"
    reason: Why = ""


TagName = Annotated[str, Field(pattern=NAME_PATTERN)]


class DescriptionAsked(Strict):
    """How a version is described from now on; what is left out stays."""

    description: Annotated[Storable, Field(max_length=2000)] | None = Field(
        default=None, description="What there is to know about the version; null: as before."
    )
    tags: dict[TagName, Annotated[Storable, Field(max_length=256)] | None] = Field(
        default_factory=dict, max_length=100, description="Value by name of the tags that change; null removes a tag."
    )
    by: Annotated[Storable, Field(min_length=1, max_length=256, description="Who describes it.")] = "unknown"


class StateAsked(Strict):
    """The state in which a version is from now on."""

    state: VersionState = Field(description=STATE_WORDS)
    by: Annotated[Storable, Field(min_length=1, max_length=256, description="Who changes it.")] = "unknown"
    reason: Annotated[Why, Field(min_length=1)]
