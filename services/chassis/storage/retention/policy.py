"""Defines the retention policy: age, size and number to keep of each kind of file. It never covers the log."""

from dataclasses import dataclass
from datetime import timedelta

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_A_RETRY_COMES = timedelta(hours=1)
"""A retry starts at most this long after the previous attempt ended; it resumes from that attempt's checkpoint."""

_A_JUDGE_READS = timedelta(hours=2)
"""A judge reads answers at most this long after they were stored."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What is kept of one kind. Anything referenced is always kept."""

    age: timedelta
    """The longest that anything is kept."""
    size: int | None = None
    """The most bytes in total; the oldest are removed first."""
    count: int | None = None
    """The largest number; the oldest are removed first."""
    least: timedelta = timedelta()
    """Nothing younger than this is removed to free space."""


class RetentionSettings(BaseSettings):
    """Read from `NEUROWEAVER_RETENTION_*`."""

    model_config = SettingsConfigDict(env_prefix="NEUROWEAVER_RETENTION_", extra="ignore", frozen=True)

    every_seconds: float = Field(default=3600.0, gt=0, description="How often the services apply the policy.")
    checkpoints_days: float = Field(default=7, ge=0, description="Checkpoints of a step, after its last attempt ended.")
    unknown_checkpoints_days: float = Field(
        default=30,
        ge=1,
        description="Checkpoints of steps that are unknown to this service's database, after the last write.",
    )
    step_logs_days: float = Field(default=30, ge=0, description="Logs of attempts that ended, after the last line.")
    step_logs_mb: float = Field(default=1000, ge=0, description="All logs of attempts of one service, in megabytes.")
    temporary_days: float = Field(default=1, ge=0, description="Temporary files of runs that have ended.")
    cache_days: float = Field(default=30, ge=0, description="Downloads, which can be repeated, after their last use.")
    cache_gb: float = Field(
        default=50, ge=0, description="All downloads, in gigabytes; those used in the last two days are kept."
    )
    answer_pairs_days: float = Field(
        default=7, ge=0, description="Answers of callers that a judge was given (shadow traffic), for at least two hours."
    )
    discarded_days: float = Field(
        default=90,
        ge=0,
        description="The bytes of discarded dead letters; the fact that they were discarded is kept for ever.",
    )
    progress_days: float = Field(default=7, ge=0, description="The latest progress of steps of jobs that ended.")
    replays_days: float = Field(default=90, ge=0, description="Results of verifies and rebuilds.")
    replays_count: int = Field(default=100, ge=1, description="The most results; the newest are kept.")
    projections_days: float = Field(default=14, ge=0, description="Versions of a projection that a rebuild replaced.")
    artifacts_days: float = Field(
        default=30,
        ge=1 / 24,
        description="Artifacts that nothing needs any more: after they were put last, their version was deleted and their job ended.",
    )
    stack_logs_days: float = Field(default=30, ge=0, description="Old log files of the development stack.")
    stack_logs_mb: float = Field(
        default=50, ge=0, description="Size of a log file of the development stack, after which a new one begins."
    )

    @property
    def checkpoints(self) -> RetentionRule:
        return RetentionRule(max(timedelta(days=self.checkpoints_days), _A_RETRY_COMES))

    @property
    def unknown_checkpoints(self) -> RetentionRule:
        return RetentionRule(timedelta(days=self.unknown_checkpoints_days))

    @property
    def step_logs(self) -> RetentionRule:
        return RetentionRule(timedelta(days=self.step_logs_days), size=round(self.step_logs_mb * 10**6))

    @property
    def temporary(self) -> RetentionRule:
        return RetentionRule(timedelta(days=self.temporary_days))

    @property
    def cache(self) -> RetentionRule:
        return RetentionRule(timedelta(days=self.cache_days), size=round(self.cache_gb * 10**9), least=timedelta(days=2))

    @property
    def artifacts(self) -> RetentionRule:
        return RetentionRule(timedelta(days=self.artifacts_days))

    @property
    def answer_pairs(self) -> RetentionRule:
        return RetentionRule(max(timedelta(days=self.answer_pairs_days), _A_JUDGE_READS))

    @property
    def stack_logs(self) -> RetentionRule:
        return RetentionRule(timedelta(days=self.stack_logs_days))
