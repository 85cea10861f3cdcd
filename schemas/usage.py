"""Defines what an attempt used of a machine, and the operator's prices for it."""

from pydantic import Field

from schemas.base import Frozen

_HOUR = 3600.0
_KWH = 3.6e6
"""Joules of a kilowatt-hour."""


class Prices(Frozen):
    """What the operator charges; a price that is null charges nothing."""

    currency: str = Field(description="The currency of all amounts, for example EUR.")
    core_hour: float | None = Field(default=None, ge=0, description="Price of a processor core for an hour.")
    device_hour: float | None = Field(default=None, ge=0, description="Price of a GPU for an hour.")
    kwh: float | None = Field(default=None, ge=0, description="Price of a kilowatt-hour, where energy is measured.")

    @property
    def of_time(self) -> bool:
        """Whether time costs anything."""
        return bool(self.core_hour or self.device_hour)

    def per_second(self, cores: int, devices: int) -> float:
        """Return what an attempt costs while it runs, without its energy, which is known when it has ended."""
        return (cores * (self.core_hour or 0) + devices * (self.device_hour or 0)) / _HOUR

    def of(self, seconds: float, cores: int, devices: int, joules: float) -> float:
        """Return what an attempt costs that has ended."""
        return seconds * self.per_second(cores, devices) + joules / _KWH * (self.kwh or 0)


class StepUsage(Frozen):
    """What an attempt used, in all its runs: a worker that is stopped or lost is followed by another."""

    seconds: float = Field(ge=0, description="Time for which it ran. Of a run that was lost, up to its last renewed lease.")
    cores: int = Field(ge=0, description="Processor cores that it counted in its last run.")
    devices: int = Field(ge=0, description="GPUs that it counted in its last run.")
    processor_joules: float | None = Field(
        default=None,
        description="Energy of the processors, measured (RAPL). Null: the machine does not tell, another attempt ran beside it, or it "
        "had several runs.",
    )
    device_joules: float | None = Field(
        default=None,
        description="Energy of its GPUs, measured (NVML). Null: it had none, one does not tell, another attempt used one too, or it "
        "had several runs.",
    )
    cost: float | None = Field(default=None, description="By the operator's prices; null without prices.")
    currency: str | None = Field(default=None, description="The currency of `cost`.")

    @property
    def joules(self) -> float | None:
        """The energy that was measured; None if none was."""
        measured = [value for value in (self.processor_joules, self.device_joules) if value is not None]
        return sum(measured) if measured else None
