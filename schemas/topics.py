"""Defines the catalogue of topics, from which topics are created and AsyncAPI and docs are generated."""

from dataclasses import dataclass
from typing import Literal

from schemas.base import EventData
from schemas.datasets import DatasetRegistered, RowsErased, RowsRemoved
from schemas.deployments import (
    DeploymentAdvanced,
    DeploymentDegraded,
    DeploymentReady,
    DeploymentRequested,
    DeploymentRetired,
    DeploymentRolledBack,
    DeploymentShadowed,
)
from schemas.discards import LogAccepted, RecordDiscarded, RecordsSkipped
from schemas.jobs import (
    FeedbackRecorded,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobControlled,
    JobControlRefused,
    JobFailed,
    JobRejected,
    StepCancelled,
    StepCancelRequested,
    StepCheckpointRequested,
    StepCompleted,
    StepFailed,
    StepPriorityChanged,
    StepRequested,
    StepStarted,
)
from schemas.latest import ModelChanged
from schemas.models import (
    AliasPolicySet,
    AliasRefused,
    AliasRemoved,
    ErasedRowsLearnt,
    GatesChecked,
    ModelPromoted,
    ModelRegistered,
    ModelRolledBack,
    PromotionDeclined,
    PromotionRequested,
    VersionDescribed,
    VersionFilesRemoved,
    VersionStateChanged,
)
from schemas.progress import StepProgressed
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequested
from schemas.steps import SERVICES

_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True)
class Topic:
    """One topic: its events, its writers and its retention."""

    name: str
    key: str
    events: tuple[type[EventData], ...]
    writers: tuple[str, ...]
    partitions: int
    retention_ms: int | None
    """How long a record is kept, in milliseconds; None for ever."""
    cleanup: Literal["delete", "compact"] = "delete"
    description: str = ""

    @property
    def lasts(self) -> bool:
        """Whether every record is kept for ever."""
        return self.retention_ms is None and self.cleanup == "delete"


REQUESTS = Topic(
    "neuroweaver.requests", "job id", (JobRequested, JobCancelRequested, JobControlRequested), ("outside", "edge", "registry"), 6, None,
    description="Requests of products and operators.",
)  # fmt: skip
JOBS = Topic(
    "neuroweaver.jobs", "job id",
    (JobAccepted, JobRejected, StepRequested, StepStarted, StepCompleted, StepFailed, StepCancelRequested, StepCancelled,
     StepPriorityChanged, StepCheckpointRequested, FeedbackRecorded, JobCompleted, JobFailed, JobCancelled, JobControlled, JobControlRefused),
    SERVICES, 6, None, description="All facts of jobs; those of one job are in one order.",
)  # fmt: skip
PROGRESS = Topic(
    "neuroweaver.progress", "job id", (StepProgressed,), ("trainer", "feedback"), 6, _DAY_MS,
    description="Progress of running steps; events may be lost.",
)  # fmt: skip
MODELS = Topic(
    "neuroweaver.models", "model name",
    (ModelRegistered, ModelPromoted, ModelRolledBack, AliasRemoved, AliasRefused, GatesChecked, AliasPolicySet, VersionDescribed,
     PromotionRequested, PromotionDeclined, VersionStateChanged, VersionFilesRemoved, ErasedRowsLearnt,
     DeploymentRequested, DeploymentAdvanced, DeploymentShadowed, DeploymentReady, DeploymentDegraded, DeploymentRolledBack, DeploymentRetired),
    ("registry",), 6, None,
    description="Facts about models and their deployments.",
)  # fmt: skip
LATEST = Topic(
    "neuroweaver.models.latest", "model name", (ModelChanged,), ("registry",), 6, None, cleanup="compact",
    description="How each model is now: a fold of neuroweaver.models.",
)  # fmt: skip
DATASETS = Topic(
    "neuroweaver.datasets", "data set name", (DatasetRegistered, RowsErased, RowsRemoved), ("registry",), 6, None,
    description="Facts about data sets.",
)  # fmt: skip
DISCARDS = Topic(
    "neuroweaver.discards", "service", (RecordDiscarded, RecordsSkipped, LogAccepted), SERVICES, 1, None,
    description="Decisions of operators to discard, skip or accept a part of the log; replays follow them.",
)  # fmt: skip


def dead_letter_topic(service: str) -> Topic:
    """Return the topic of the records that `service` could not process; records keep their bytes, and headers say why."""
    return Topic(
        f"neuroweaver.{service}.dlq", "original key", (), (service,), 1, 30 * _DAY_MS,
        description=f"Records that {service} could not process, with the reason.",
    )  # fmt: skip


CATALOGUE: tuple[Topic, ...] = (
    REQUESTS,
    JOBS,
    PROGRESS,
    MODELS,
    LATEST,
    DATASETS,
    DISCARDS,
    *(dead_letter_topic(name) for name in SERVICES),
)

EVENT_TYPES: dict[str, type[EventData]] = {event.type_name(): event for topic in CATALOGUE for event in topic.events}
"""Every event type by its name."""

TOPIC_OF: dict[str, Topic] = {event.type_name(): topic for topic in CATALOGUE for event in topic.events}
"""The topic of each event type."""


_KEY_FIELDS = {"job id": "job_id", "model name": "model", "data set name": "dataset", "service": "service"}


def aggregate_key(data: EventData) -> str:
    """Return the record key of an event: the value of the field that its topic's `key` names."""
    return str(getattr(data, _KEY_FIELDS[TOPIC_OF[data.type_name()].key]))
