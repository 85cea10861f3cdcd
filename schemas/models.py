"""Defines the registry's events about models, ordered per model."""

from pydantic import Field, JsonValue

from schemas.artifacts import ArtifactRef
from schemas.base import EventData, Frozen
from schemas.gates import AliasPolicy, GateVerdict
from schemas.jobs import StepResult
from schemas.reasons import Reason
from schemas.results import MODEL
from schemas.versions import STATE_WORDS


class Imported(Frozen):
    """Where the files of a version come from that no job of this system made."""

    source: str = Field(description="Reference of the folder, bucket or repository, as the request names it.")
    revision: str | None = Field(default=None, description="Commit of the hub's repository; null for another source.")
    at: str | None = Field(default=None, description="When the files had been read, RFC 3339.")
    licence: str | None = Field(default=None, description="Licence that the model card names; null if none does.")


class Lineage(Frozen):
    """The origin of a version."""

    job_id: str = Field(description="The job that made the version.")
    step: str = Field(description="The register step of the job.")
    requester: str = Field(description="Who requested the job.")
    base_model: str = Field(description="Reference of the base model.")
    base_model_sha256: str | None = Field(description="Digest of the base model's files, as the prepare step read them.")
    dataset_sha256: str | None = Field(description="Digest of the data-set snapshot.")
    started_from: str | None = Field(
        default=None, description="The registered version that training started from, `name@version`; null for none."
    )
    dataset: str | None = Field(
        default=None,
        description="The registered data set, `name@digest`; null where an earlier release prepared the data.",
    )
    configuration: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Recipe of the training that made the artifact, from its `training.json`. Of an imported version it is what "
        "that file says, and nothing here proves it.",
    )
    results: dict[str, StepResult] = Field(description="Results of all steps before the registration, by step.")
    imported: Imported | None = Field(
        default=None,
        description="Set if the files were made elsewhere and the job only read them; `requester` is who imported them. Null: the job made "
        "them.",
    )


class ModelRegistered(EventData):
    """A new version of a model was registered; it never changes."""

    model: str = Field(description="Name of the model; also the record's key.")
    version: str = Field(
        description="Semantic version, from 1.0.0. Another base model raises the major number, other data or another "
        "recipe the minor number, and a repetition the patch number."
    )
    artifact: ArtifactRef = Field(description="The adapter, or the whole model.")
    lineage: Lineage
    metrics: dict[str, float | None] = Field(
        description="Metrics of the evaluation of this version, by name, and of a compressed one those of its compression."
    )
    kind: str = Field(default="adapter", description="What the artifact is: `adapter` or `model`.")
    parent: ArtifactRef | None = Field(
        default=None, description="The adapter or model from which a step of kind compress made this one; null if none did."
    )
    parent_metrics: dict[str, float | None] = Field(
        default_factory=dict, description="Metrics of the evaluation of the parent, by name."
    )
    purpose: str = Field(
        default="answers",
        description="What the version is for. answers: it writes answers; scores: it is a reward model, which scores answers as "
        "a judge and writes none. All versions of a model have the same purpose, so an alias never moves from one to the other.",
    )
    evaluated: bool | None = Field(
        default=None,
        description="Whether a step before the registration measured this version on held-out rows; `metrics` may have others, such as "
        "those of its compression. Null: an earlier release, whose `lineage.results` tell it.",
    )


def is_whole(artifact: ArtifactRef, lineage: Lineage) -> bool:
    """Whether a version is a whole model: a step of its job made it as one."""
    made = (result.outputs.get(MODEL) for result in lineage.results.values())
    return any(model is not None and model.sha256 == artifact.sha256 for model in made)


class VersionDescribed(EventData):
    """Somebody described a version. Description and tags are as they are from now on; the version itself never changes."""

    model: str = Field(description="Name of the model; also the record's key.")
    version: str = Field(description="The version.")
    job_id: str = Field(description="The job that made the version.")
    step: str = Field(description="The register step of the job.")
    description: str = Field(description="What there is to know about the version; may be empty.")
    tags: dict[str, str] = Field(description="Its tags: value by name.")
    by: str = Field(default="unknown", description="Who described it.")


_SUPERSEDES = "Id of the request that waited for approval for this alias and waits no more; null if none did."


class VersionStateChanged(EventData):
    """Somebody changed the state of a version; the version itself never changes. Its files stay until VersionFilesRemoved."""

    model: str = Field(description="Name of the model; also the record's key.")
    version: str = Field(description="The version.")
    job_id: str = Field(description="The job that made the version.")
    step: str = Field(description="The register step of the job.")
    state: str = Field(description=STATE_WORDS)
    previous: str = Field(description="The state before.")
    by: str = Field(description="Who changed it.")
    reason: str = Field(description="Why.")


class VersionFilesRemoved(EventData):
    """The files of a deleted version are about to be removed from the artifact store, so it cannot be restored any more.

    What the log says of it stays, and so does its number.
    """

    model: str = Field(description="Name of the model; also the record's key.")
    version: str = Field(description="The version.")
    job_id: str = Field(description="The job that made the version.")
    step: str = Field(description="The register step of the job.")
    artifact: ArtifactRef = Field(description="The files.")


class ErasedRowsLearnt(EventData):
    """A version learnt from rows that somebody erased; it still has what it learnt, since nothing is unlearnt."""

    model: str = Field(description="Name of the model; also the record's key.")
    version: str = Field(description="The version.")
    job_id: str = Field(description="The job that made the version.")
    step: str = Field(description="The register step of the job.")
    erasure: str = Field(description="Id of the erasure.")
    dataset: str = Field(description="The data set of the rows, `name@digest`.")
    rows: int = Field(
        description="How many of its rows the trainings behind the version learnt from; where a ledger cannot be read, they count as learnt."
    )
    through: str | None = Field(
        default=None, description="The version that it continues from and that learnt from them; null if its own job did."
    )
    by: str = Field(description="Who erased them.")
    reason: str = Field(description="Why.")


class AliasMoved(EventData):
    """What all moves of an alias tell."""

    model: str = Field(description="Name of the model; also the record's key.")
    alias: str = Field(description="The alias.")
    version: str = Field(description="The version that it names from now on.")
    previous: str | None = Field(description="The version that it named before; null if the alias is new.")
    by: str = Field(default="unknown", description="Who moved it: the requester of a job, or who sent the command.")
    reason: str = Field(default="", description="Why it was moved.")
    move: str | None = Field(default=None, description="Id of the move; null in events of earlier releases.")

    registered_by: str | None = Field(
        default=None,
        description="Job and step that registered the version, `job/step`; null in events of earlier releases.",
    )
    verdict: str | None = Field(
        default=None,
        description="What the gates of the alias said: passed, or inconclusive, which a person accepted; null if none was asked. "
        "The GatesChecked whose `check` is this `move` has the evidence.",
    )
    supersedes: str | None = Field(default=None, description=_SUPERSEDES)


class ModelPromoted(AliasMoved):
    """An alias moved to a version. If a second person approved it, `by` and `reason` are of who asked for it."""

    request: str | None = Field(default=None, description="Id of the request that was approved; null if none was needed.")
    approved_by: str | None = Field(default=None, description="Who approved it; null if no approval was needed.")
    approval_reason: str = Field(default="", description="Why it was approved; may be empty.")


class ModelRolledBack(AliasMoved):
    """An alias went back to a version that it had named before."""


class AliasRemoved(EventData):
    """An alias names no version any more."""

    model: str = Field(description="Name of the model; also the record's key.")
    alias: str = Field(description="The alias.")
    previous: str = Field(description="The version that it named before.")
    by: str = Field(default="unknown", description="Who removed it.")
    reason: str = Field(default="", description="Why it was removed.")
    move: str = Field(description="Id of the change, as of a move.")
    supersedes: str | None = Field(default=None, description=_SUPERSEDES)


class AliasRefused(EventData):
    """A job asked that an alias moves to the version it made, and the alias did not move. The version stays."""

    model: str = Field(description="Name of the model; also the record's key.")
    alias: str = Field(description="The alias.")
    version: str = Field(description="The version that it does not name.")
    by: str = Field(default="unknown", description="The requester of the job.")
    reasons: tuple[Reason, ...] = Field(description="Why it did not move.")
    check: str | None = Field(
        default=None, description="Id of the GatesChecked that has the evidence; null if no gate was asked."
    )


class GatesChecked(EventData):
    """The gates of an alias were asked about a version that somebody wants it to name."""

    model: str = Field(description="Name of the model; also the record's key.")
    alias: str = Field(description="The alias.")
    version: str = Field(description="The version.")
    holder: str | None = Field(description="The version that the alias names; null for none.")
    verdict: str = Field(
        description="failed if one of the gates failed, else inconclusive if one of them was, else passed."
    )
    gates: tuple[GateVerdict, ...] = Field(description="What each gate said, and what it compared.")
    by: str = Field(description="Who wants the alias to move.")
    check: str = Field(description="Id of the check; a move that followed has the same id.")


class AliasPolicySet(EventData):
    """The rules by which an alias moves were set; from now on only these hold."""

    model: str = Field(description="Name of the model; also the record's key.")
    alias: str = Field(description="The alias; it need not name a version yet.")
    policy: AliasPolicy | None = Field(description="The rules; null for none.")
    by: str = Field(description="Who set them.")
    reason: str = Field(description="Why they were set.")
    supersedes: str | None = Field(default=None, description=_SUPERSEDES)


class PromotionRequested(EventData):
    """Somebody asks that an alias moves to a version, and somebody else has to approve it. The gates let the version pass."""

    model: str = Field(description="Name of the model; also the record's key.")
    alias: str = Field(description="The alias; it stays where it is.")
    version: str = Field(description="The version that it is to name.")
    previous: str | None = Field(description="The version that it names; null for none.")
    by: str = Field(description="Who asks: a person, or the requester of a job.")
    reason: str = Field(description="Why; may be empty.")
    request: str = Field(description="Id of the request; a GatesChecked with this `check` has the evidence.")
    registered_by: str = Field(description="Job and step that registered the version, `job/step`.")
    verdict: str | None = Field(description="What the gates said: passed, or inconclusive; null if none was asked.")
    accepts_inconclusive: bool = Field(
        default=False, description="Whether who asks takes it on themselves that evidence does not suffice."
    )
    accepts_deprecated: bool = Field(
        default=False, description="Whether who asks takes it on themselves that the version is deprecated."
    )
    supersedes: str | None = Field(default=None, description=_SUPERSEDES)


class PromotionDeclined(EventData):
    """A request waits for approval no more: somebody declined it, or who asked took it back. The alias stays where it is."""

    model: str = Field(description="Name of the model; also the record's key.")
    alias: str = Field(description="The alias.")
    version: str = Field(description="The version that it was to name.")
    request: str = Field(description="Id of the request.")
    by: str = Field(description="Who declined it.")
    reason: str = Field(description="Why.")
