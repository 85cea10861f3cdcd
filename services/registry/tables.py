"""Describes the registry's tables as they are now; a test compares them with what the migrations made."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    Double,
    Identity,
    Index,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.chassis.executor.tables import attempt_table, work_table
from services.chassis.kernel.tables import OPERATIONAL, aggregate_table
from services.chassis.postgres.summaries import beginning_of, number_of, object_of, text_of, time_of
from services.registry.domain.datasets import DATA_SET
from services.registry.domain.deployments.judged import JUDGEMENT
from services.registry.domain.deployments.state import DEPLOYMENT
from services.registry.domain.erasing import ERASURE
from services.registry.domain.job_ends import JOB_END
from services.registry.domain.requests import PROMOTION_REQUEST
from services.registry.domain.state import ALIAS_MOVE, GATE_CHECK, MODEL, REGISTRATION
from services.registry.domain.uses import DATA_USE

metadata = MetaData()

attempt = attempt_table(metadata)
work = work_table(metadata)

SUMMARY = {
    "id": text_of("model || '@' || version"), "name": text_of("model"), "version": text_of("version"),
    "registered_at": time_of("registered_at"),
    **{name: text_of(name) for name in ("job_id", "requester", "base_model", "dataset_sha256")},
    "metrics": number_of("state -> 'registered' -> 'metrics'"),
}  # fmt: skip
"""The fields of a VersionSummary except its aliases, and the SQL that computes them."""

model = aggregate_table(
    metadata,
    MODEL,
    Column("aliases", JSONB, Computed("state -> 'aliases'", persisted=True)),
    Column("named", JSONB, comment="Aliases by version."),
)

registration = aggregate_table(
    metadata,
    REGISTRATION,
    Column("model", Text),
    Column("version", Text),
    Column("job_id", Text),
    Column("requester", Text),
    Column("base_model", Text),
    Column("dataset_sha256", Text),
    Column("purpose", Text),
    Column("started_from", Text, Computed("state -> 'registered' -> 'lineage' ->> 'started_from'", persisted=True)),
    Column(
        "dataset",
        Text,
        Computed("split_part(state -> 'registered' -> 'lineage' ->> 'dataset', '@', 2)", persisted=True),
        comment="Digest under which its data set is registered; null where that is not known.",
    ),
    Column("registered_at", DateTime(timezone=True)),
    Column("erased_rows", BigInteger, comment="How many rows that were erased it learnt from."),
    Column("tags", JSONB, Computed("state -> 'tags'", persisted=True)),
    Column(
        "version_state",
        Text,
        Computed("state ->> 'state'", persisted=True),
        comment="live, deprecated, archived or deleted.",
    ),
    Column("metrics", JSONB, Computed("state -> 'registered' -> 'metrics'", persisted=True)),
    Column(
        "summary",
        Text,
        Computed(beginning_of(SUMMARY), persisted=True),
        comment="VersionSummary as JSON, without its aliases and the closing brace.",
    ),
)
Index("registration_newest", registration.c.registered_at.desc(), registration.c.key.desc())
Index("registration_version", registration.c.model, registration.c.version, unique=True)
_NEWEST = (registration.c.registered_at.desc(), registration.c.key.desc())
Index("registration_erased", *_NEWEST, postgresql_where=text("erased_rows > 0"))
for _column in ("model", "job_id", "requester", "base_model", "dataset_sha256", "started_from", "dataset", "version_state"):
    Index(f"registration_{_column}", registration.c[_column], *_NEWEST)

alias_move = aggregate_table(
    metadata,
    ALIAS_MOVE,
    Column("model", Text),
    Column("alias", Text),
    Column("moved_at", DateTime(timezone=True)),
    Column("item", Text, Computed("CAST(state -> 'move' AS text)", persisted=True), comment="AliasMove as JSON."),
)
Index("alias_move_model", alias_move.c.model, alias_move.c.moved_at.desc(), alias_move.c.key.desc())

gate_check = aggregate_table(
    metadata,
    GATE_CHECK,
    Column("model", Text),
    Column("alias", Text),
    Column("version", Text),
    Column("checked_at", DateTime(timezone=True)),
    Column("item", Text, Computed("CAST(state -> 'check' AS text)", persisted=True), comment="GateCheck as JSON."),
)
Index("gate_check_model", gate_check.c.model, gate_check.c.checked_at.desc(), gate_check.c.key.desc())

promotion_request = aggregate_table(
    metadata,
    PROMOTION_REQUEST,
    Column("model", Text),
    Column("alias", Text),
    Column("version", Text),
    Column("status", Text),
    Column("requested_at", DateTime(timezone=True)),
    Column(
        "item",
        Text,
        Computed("CAST((state -> 'asked') || (state -> 'outcome') AS text)", persisted=True),
        comment="PromotionRequest as JSON.",
    ),
)
Index(
    "promotion_request_model",
    promotion_request.c.model,
    promotion_request.c.requested_at.desc(),
    promotion_request.c.key.desc(),
)

DATASET_ITEM = {
    "id": text_of("key"), "name": text_of("name"), "sha256": text_of("sha256"),
    "registered_at": time_of("registered_at"),
    **{name: text_of(name) for name in ("registered_by", "job_id", "licence", "dataset_sha256")},
    "rows": "coalesce(CAST(state -> 'registered' -> 'rows' AS text), '{}')",
    "reference": text_of("state -> 'registered' ->> 'reference'"), "source": text_of("state -> 'registered' ->> 'source'"),
}  # fmt: skip
"""The fields of a DatasetSummary, and the SQL that computes them."""

dataset = aggregate_table(
    metadata,
    DATA_SET,
    Column("name", Text),
    Column("sha256", Text),
    Column("dataset_sha256", Text),
    Column("licence", Text),
    Column("job_id", Text),
    Column("registered_by", Text),
    Column("registered_at", DateTime(timezone=True)),
    Column("erasing", Boolean, comment="Whether bytes of erased rows are still to be removed."),
    Column("item", Text, Computed(object_of(DATASET_ITEM), persisted=True), comment="DatasetSummary as JSON."),
)
_NEWEST_SETS = (dataset.c.registered_at.desc(), dataset.c.key.desc())
Index("dataset_newest", *_NEWEST_SETS)
for _column in ("name", "licence", "job_id", "registered_by"):
    Index(f"dataset_{_column}", dataset.c[_column], *_NEWEST_SETS)
Index("dataset_digest", dataset.c.sha256)
Index("dataset_erasing", dataset.c.key, postgresql_where=text("erasing"))

erasure = aggregate_table(
    metadata,
    ERASURE,
    Column("dataset", Text, comment="The data set, `name@digest`."),
    Column("erased_at", DateTime(timezone=True)),
)
Index("erasure_dataset", erasure.c.dataset)

erasure_check = Table(
    "erasure_check",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False, comment="Digest of a data set, or key of a version."),
    schema=OPERATIONAL,
    comment="Data that were stored and versions that were registered, still to be looked at for erased rows.",
)

deployment = aggregate_table(metadata, DEPLOYMENT, Column("model", Text), Column("open", Boolean))
Index("deployment_model", deployment.c.model)
Index("deployment_open", deployment.c.key, postgresql_where=text("open"))

deployment_slot = Table(
    "deployment_slot",
    metadata,
    Column("deployment", Text, nullable=False),
    Column("slot", Text, nullable=False),
    Column("served", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("address", Text, comment="Base URL of its server."),
    Column(
        "called", Text, nullable=False, server_default="", comment="What its server calls the version; empty: `served`."
    ),
    Column("headers", JSONB, nullable=False, comment="What a request to it needs; one may be a secret."),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("observed_at", DateTime(timezone=True), nullable=False, comment="On the database's clock."),
    PrimaryKeyConstraint("deployment", "slot"),
    schema=OPERATIONAL,
    comment="What the driver observed of the slots of deployments.",
)

data_use = aggregate_table(
    metadata,
    DATA_USE,
    Column("job_id", Text),
    Column("stored", Text, comment="Digest of the data set that the step stored."),
    Column("used_at", DateTime(timezone=True)),
)
Index("data_use_job", data_use.c.job_id)
Index("data_use_stored", data_use.c.stored, data_use.c.used_at.desc(), data_use.c.key.desc())

job_end = aggregate_table(metadata, JOB_END, Column("ended", Boolean))

deployment_traffic = Table(
    "deployment_traffic",
    metadata,
    Column("deployment", Text, nullable=False),
    Column("rollout", BigInteger, nullable=False, comment="The generation that is rolled out."),
    Column("percent", Double, nullable=False, comment="The step."),
    Column("target", Boolean, nullable=False, comment="Whether it counts the version that is rolled out."),
    Column("process", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("empty", BigInteger, nullable=False),
    Column("latencies", JSONB, nullable=False, comment="Number of answers by bucket."),
    PrimaryKeyConstraint("deployment", "rollout", "percent", "target", "process"),
    schema=OPERATIONAL,
    comment="What the callers of canaries got, as each process counted it.",
)

judgement = aggregate_table(metadata, JUDGEMENT, Column("deployment", Text), Column("rollout", BigInteger))
Index("judgement_deployment", judgement.c.deployment, judgement.c.rollout)

shadow_pair = Table(
    "shadow_pair",
    metadata,
    Column("response", Text, primary_key=True, comment="Id of the response that the caller got."),
    Column("deployment", Text, nullable=False),
    Column("rollout", BigInteger, nullable=False, comment="The generation that is rolled out."),
    Column("percent", Double, nullable=False, comment="The step."),
    Column("pair", Text, comment="AnswerPair as JSON; null once it is in an artifact."),
    Column("stored_at", DateTime(timezone=True), nullable=False, comment="On the database's clock."),
    schema=OPERATIONAL,
    comment="Answers of a canary and of the version before to the same requests, until a judge gets them or the rollout ends.",
)
Index("shadow_pair_step", shadow_pair.c.deployment, shadow_pair.c.rollout, shadow_pair.c.percent)

model_latest = Table(
    "model_latest",
    metadata,
    Column("model", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False, comment="Of the model, as published."),
    Column("deployments", Numeric, nullable=False, comment="Sum of the numbers of its deployments, as published."),
    schema=OPERATIONAL,
    comment="Which state of each model is on the compacted topic.",
)
