"""Defines how HTTP shows and takes the policy of an alias, documented for /docs; what a person writes is checked in full."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from schemas.base import Frozen, Name, Real, RealOrNone, Strict, WholeOrNone
from schemas.gates import ROLLBACK_DAYS, AliasPolicy, Gate
from services.registry.domain.state import GateCheck
from services.registry.views import By, Why

GATES_AT_MOST = 20
ROWS_AT_MOST = 10**9
DAYS_AT_MOST = 3650


class GateAsked(Gate):
    """A gate as a person writes it."""

    model_config = ConfigDict(extra="forbid")

    metric: Name = Field(description="Name of the metric, as `GET /models/{model_id}` shows it.")
    comparison: Literal["at_least", "at_most"] = Field(description="at_least: more is better; at_most: less is better.")
    threshold: RealOrNone = Field(
        default=None, allow_inf_nan=False, description="The number that the metric is compared with."
    )
    worse_by: RealOrNone = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="By how much the metric may be worse than that of the version which the alias names.",
    )
    rows: WholeOrNone = Field(
        default=None, ge=1, le=ROWS_AT_MOST, description="Least number of rows that the metric was measured on."
    )
    agreement: RealOrNone = Field(
        default=None, ge=0, le=1, description="Least agreement of the judge with the rules in the label steps of the job."
    )

    @model_validator(mode="after")
    def _one_limit(self) -> "GateAsked":
        if (self.threshold is None) == (self.worse_by is None):
            raise ValueError("give the gate either a threshold or worse_by")
        return self


class PolicyAsked(Strict):
    """The rules by which an alias moves from now on."""

    gates: tuple[GateAsked, ...] = Field(default=(), max_length=GATES_AT_MOST, description="What a version has to meet.")
    protected: bool = Field(default=False, description="Whether no job moves the alias, and a person says why.")
    rollback_days: Real = Field(
        default=ROLLBACK_DAYS,
        ge=0,
        le=DAYS_AT_MOST,
        allow_inf_nan=False,
        description="For so many days after the alias left a version it goes back without gates.",
    )
    approval: bool = Field(
        default=False, description="Whether a promotion waits until somebody else than who asked for it approves it."
    )
    by: By = "unknown"
    reason: Annotated[Why, Field(min_length=1)]

    @property
    def policy(self) -> AliasPolicy:
        """The policy without who set it and why."""
        return AliasPolicy.model_validate(self.model_dump(include=set(AliasPolicy.model_fields)))


class PolicyRemovalAsked(Frozen):
    """The query that removes a policy."""

    by: By = "unknown"
    reason: Annotated[Why, Field(min_length=1)]


class PolicyView(Frozen):
    """The rules by which an alias moves."""

    name: str
    alias: str
    sequence: int = Field(description="Number of the latest event that changed an alias or its policy, which is the ETag.")
    policy: AliasPolicy


class CheckPage(Frozen):
    """A page of checks of the gates of a model's aliases, newest first."""

    items: tuple[GateCheck, ...]
    next: str | None = Field(description="Cursor of the next page; null at the end.")
