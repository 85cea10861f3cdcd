"""Defines the gates of an alias, its other rules, and what a gate said of a version."""

from pydantic import Field

from schemas.base import Frozen

AT_LEAST, AT_MOST = "at_least", "at_most"
PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"
ROLLBACK_DAYS = 30.0
"""How long an alias goes back without gates unless its policy says otherwise."""


class Gate(Frozen):
    """A condition that a version has to meet before an alias names it. It has `threshold` or `worse_by`."""

    metric: str = Field(description="Name of the metric, as the version has it.")
    comparison: str = Field(description="at_least: more is better; at_most: less is better.")
    threshold: float | None = Field(default=None, description="The number that the metric is compared with.")
    worse_by: float | None = Field(
        default=None,
        description="By how much the metric may be worse than that of the version which the alias names; both must have been "
        "measured on the same data.",
    )
    rows: int | None = Field(default=None, description="Least number of rows that the metric was measured on.")
    agreement: float | None = Field(
        default=None, description="Least agreement of the judge with the rules in the label steps of the job, from 0 to 1."
    )
    interval: bool = Field(
        default=False,
        description="Whether the metric needs a confidence interval. Without one, false lets the value alone decide. An interval "
        "that is known always counts.",
    )


class AliasPolicy(Frozen):
    """The rules by which an alias moves."""

    gates: tuple[Gate, ...] = Field(default=(), description="What a version has to meet.")
    protected: bool = Field(
        default=False,
        description="Whether no job moves the alias, nobody removes it, and everybody who moves it says why and which state of the "
        "aliases they saw.",
    )
    rollback_days: float = Field(
        default=ROLLBACK_DAYS,
        description="For so many days after the alias left a version it goes back to it without gates and without approval.",
    )
    approval: bool = Field(
        default=False,
        description="Whether a promotion waits until somebody else than who asked for it approves it.",
    )


class GateVerdict(Frozen):
    """What a gate said of a version, and what it compared."""

    gate: Gate
    verdict: str = Field(description="passed, failed, or inconclusive: the evidence does not suffice.")
    why: str = Field(description="Why, in words.")
    value: float | None = Field(description="The metric of the version; null: not known or not measurable.")
    low: float | None = Field(default=None, description="Lower bound of its 95 % confidence interval; null: not known.")
    high: float | None = Field(default=None, description="Upper bound of that interval.")
    rows: float | None = Field(default=None, description="Number of rows that it was measured on; null: not known.")
    agreement: float | None = Field(default=None, description="Least agreement of the judge in the job's label steps.")
    holder_value: float | None = Field(
        default=None,
        description="The metric of the version that the alias names; null: not compared with it, or not known.",
    )
    holder_low: float | None = Field(default=None, description="Lower bound of its interval.")
    holder_high: float | None = Field(default=None, description="Upper bound of its interval.")
