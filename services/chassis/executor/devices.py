"""Reads the processors and the NVIDIA GPUs of this machine: memory, utilisation, temperature and energy, as far as they tell.

GPUs are read with NVML, the library of NVIDIA's driver. Without the driver, or without the package nvidia-ml-py, there are none.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

_MB = 1024 * 1024
_EVERY_SECONDS = 1.0
_POWERCAP = Path("/sys/class/powercap")
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")


class Device(NamedTuple):
    """A GPU. What it does not tell is None."""

    total_mb: int
    free_mb: int
    """What its driver says, with everything that runs on it."""
    utilisation: float | None = None
    """Share of the last moments in which it computed."""
    celsius: float | None = None
    joules: float | None = None
    """Energy since the driver was loaded."""


class Processors(NamedTuple):
    """The processors of this machine. What they do not tell is None."""

    utilisation: float
    """Share of the time since the last reading in which the cores worked."""
    celsius: float | None
    memory_used: int
    """Bytes of main memory."""
    memory_total: int


def no_devices() -> Sequence[Device]:
    """The GPUs of a machine that has none."""
    return ()


def device_reader() -> Callable[[], Sequence[Device]]:
    """Return the function that reads this machine's GPUs, at most once in some seconds; it may block for as long as the driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, or one that does not answer
        return no_devices
    found, read_at = _devices(pynvml), time.monotonic()
    if not found:
        return no_devices

    def read() -> Sequence[Device]:
        nonlocal found, read_at
        if time.monotonic() - read_at > _EVERY_SECONDS:
            found, read_at = _devices(pynvml), time.monotonic()
        return found

    return read


def _devices(nvml: Any) -> Sequence[Device]:
    """Return all GPUs; none if one does not answer, since the numbers of the others would no longer be theirs."""
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        return [_device(nvml, handle) for handle in handles]
    except nvml.NVMLError:
        return ()


def _device(nvml: Any, handle: Any) -> Device:
    def told(read: Callable[[], float]) -> float | None:
        try:
            return float(read())
        except nvml.NVMLError:  # it does not have this reading
            return None

    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    percent = told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    millijoules = told(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    return Device(
        total_mb=int(memory.total) // _MB,
        free_mb=int(memory.free) // _MB,
        utilisation=None if percent is None else percent / 100,
        celsius=told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        joules=None if millijoules is None else millijoules / 1000,
    )


def read_processors() -> Processors:
    """Read the processors; the first reading of a process has no utilisation yet and says 0."""
    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    return Processors(psutil.cpu_percent(None) / 100, _processor_celsius(), used, memory.total)


def _processor_celsius() -> float | None:
    """Return the temperature of the hottest processor sensor."""
    read: Callable[[], dict[str, Any]] = getattr(psutil, "sensors_temperatures", dict)
    sensors = read()
    found = [sensor.current for name in _PROCESSOR_SENSORS for sensor in sensors.get(name, ()) if sensor.current]
    return max(found, default=None)


class ProcessorEnergy:
    """The energy of the processor packages (RAPL) since this was made. The counters wrap, so it must be read every few minutes."""

    def __init__(self, root: Path = _POWERCAP) -> None:
        self._zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if _is_package(zone)]
        self._last = self._counters()
        self._joules = 0.0

    def read(self) -> float | None:
        """Return the joules so far; None if the machine does not tell, or no longer does."""
        now = self._counters()
        if now is None or self._last is None:
            self._last = None
            return None
        self._joules += sum(
            (after - before if after >= before else after + limit - before) / 1e6
            for (before, _), (after, limit) in zip(self._last, now, strict=True)
        )
        self._last = now
        return self._joules

    def _counters(self) -> Sequence[tuple[int, int]] | None:
        """Return microjoules and their limit, of each package."""
        try:
            found = [(_number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")) for zone in self._zones]
        except (OSError, ValueError):  # since 2020 only root may read them by default
            return None
        return found or None


def _is_package(zone: Path) -> bool:
    """Whether a zone is a whole package; its parts are counted in it."""
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _number(file: Path) -> int:
    return int(file.read_text())
