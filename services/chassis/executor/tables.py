"""Describes the current tables of an executor; a test compares them with the result of the migrations."""

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, DateTime, Double, Index, Integer, MetaData, Table, Text, text

from services.chassis.executor.attempts import ATTEMPT, OPEN
from services.chassis.kernel.tables import OPERATIONAL, aggregate_table

WORK = "work"


def attempt_table(metadata: MetaData) -> Table:
    """Return the aggregate table `attempt` with its query columns; the index `attempt_open` serves `work.requeue_open`."""
    table = aggregate_table(
        metadata,
        ATTEMPT,
        Column("job_id", Text),
        Column("step", Text),
        Column("attempt", Integer),
        Column("kind", Text),
        Column("status", Text),
        Column("priority", Integer),
        Column("requested_at", DateTime(timezone=True)),
        Column("not_before", DateTime(timezone=True)),
    )
    statuses = ", ".join(repr(status) for status in OPEN)
    Index("attempt_open", table.c.status, postgresql_where=text(f"status IN ({statuses})"))
    return table


def work_table(metadata: MetaData) -> Table:
    """Attempts without an outcome, and their leases. The table is operational: a rebuild does not change it."""
    return Table(
        WORK,
        metadata,
        Column("key", Text, primary_key=True, comment="Key of the attempt."),
        Column("priority", Integer, nullable=False),
        Column("requested_at", DateTime(timezone=True), nullable=False),
        Column("not_before", DateTime(timezone=True), comment="Earliest start, on this database's clock; null: at once."),
        Column("cancel", Boolean, nullable=False, server_default=text("false")),
        Column("lease", Text, comment="Token of the worker that holds it: the fence of everything it writes."),
        Column("leased_until", DateTime(timezone=True), comment="On the database's clock."),
        Column("leases", Integer, nullable=False, server_default=text("0"), comment="How often it was claimed."),
        Column("requester", Text, nullable=False, server_default=text("'unknown'")),
        Column(
            "turn", BigInteger, nullable=False, server_default=text("0"), comment="Of its requester; the lowest is next."
        ),
        Column("cores", Integer, comment="What the attempt needs (`needs.Need`); null: unknown."),
        Column("memory_mb", Integer),
        Column("device_mb", Integer),
        Column("passed", Integer, nullable=False, server_default=text("0"), comment="How often a claim passed over it."),
        Column("host", Text, comment="The machine of the worker that holds it, or held it last."),
        Column("process", Text, comment="Its process."),
        Column(
            "gpus",
            ARRAY(Integer),
            nullable=False,
            server_default=text("'{}'"),
            comment="Numbers of the GPUs that it counts on there.",
        ),
        Column("counted_at", DateTime(timezone=True), comment="Up to when its lease is counted in `used_seconds`."),
        Column(
            "used_seconds", Double, nullable=False, server_default=text("0"), comment="For how long workers have held it."
        ),
        Index("work_order", text("priority DESC"), "turn", "requested_at", "key"),
        Index("work_turns", "requester", "priority", "turn"),
        Index("work_leased", "priority", "turn", postgresql_where=text("lease IS NOT NULL")),
        Index("work_on_host", "host", postgresql_where=text("lease IS NOT NULL")),
        schema=OPERATIONAL,
        comment="Work of this executor, claimed by lease.",
    )
