"""Watches the processors and GPUs of this machine for one executor: as metrics, for progress, and to measure what an attempt uses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from schemas.progress import DeviceReading
from services.chassis.executor import metrics
from services.chassis.executor.devices import Device, ProcessorEnergy, Processors, read_processors
from services.chassis.process.transient import wait_or_stop

EVERY_SECONDS = 5.0
"""How often everything is read; more often than the counters of energy wrap."""
_ANSWER_SECONDS = 5.0
_MB = 1024 * 1024
_PROCESSORS = "cpu"


class EnergyMeter:
    """The energy of one attempt while it runs on these GPUs, or on none."""

    def __init__(self, gpus: Sequence[int], processor_joules: float | None, device_joules: float | None) -> None:
        self.gpus = gpus
        self._processor_joules, self._device_joules = processor_joules, device_joules
        self._beside, self._on_device = False, False

    def meets(self, other: "EnergyMeter") -> None:
        """Note that two attempts run at the same time, so that the energy of what they share is of neither."""
        same = bool(set(self.gpus) & set(other.gpus))
        for one in (self, other):
            one._beside = True
            one._on_device = one._on_device or same

    def until(self, processor_joules: float | None, device_joules: float | None) -> tuple[float | None, float | None]:
        """Return the energy of the processors and of its GPUs, as far as they were measured and were its own."""
        return (
            None if self._beside else _between(self._processor_joules, processor_joules),
            None if self._on_device else _between(self._device_joules, device_joules),
        )


class Monitor:
    """The readings of one process. `devices` reads the GPUs; `here`: whether attempts run on this machine."""

    def __init__(
        self,
        service: str,
        devices: Callable[[], Sequence[Device]],
        energy: ProcessorEnergy | None = None,
        *,
        here: bool = True,
    ) -> None:
        self._service, self._read, self._here = service, devices, here
        self._energy = energy or ProcessorEnergy()
        self._processors: Processors | None = None
        self._devices: Sequence[Device] = ()
        self._joules: float | None = None
        self._running: set[EnergyMeter] = set()
        self._looking: asyncio.Task[tuple[Processors, Sequence[Device], float | None]] | None = None
        self._shown: set[str] = set()
        """The devices that the metrics have."""

    async def run(self, stop: asyncio.Event) -> None:
        """Read everything every few seconds until `stop`."""
        while not stop.is_set():
            await self.look()
            await wait_or_stop(stop, EVERY_SECONDS)

    async def look(self) -> None:
        """Read everything once. A driver that does not answer is not waited for, and what was read before stays."""
        if self._looking is None:
            self._looking = asyncio.create_task(asyncio.to_thread(self._readings))
        looking = self._looking
        await asyncio.wait({looking}, timeout=_ANSWER_SECONDS)
        if not looking.done():
            return
        if self._looking is looking:
            self._looking = None
        self._processors, self._devices, self._joules = looking.result()
        found = [reading for reading in (self.reading(None), *map(self.reading, range(len(self._devices)))) if reading]
        for reading in found:
            _show(self._service, reading)
        for gone in self._shown - {reading.device for reading in found}:
            _hide(self._service, gone)
        self._shown = {reading.device for reading in found}

    def _readings(self) -> tuple[Processors, Sequence[Device], float | None]:
        return read_processors(), self._read(), self._energy.read()

    def reading(self, device: int | None) -> DeviceReading | None:
        """Return the latest reading of a GPU, or of the processors for None; None before the first."""
        if device is None:
            found = self._processors
            return found and DeviceReading(
                device=_PROCESSORS, utilisation=found.utilisation, celsius=found.celsius,
                memory_used_bytes=found.memory_used, memory_bytes=found.memory_total,
            )  # fmt: skip
        if device >= len(self._devices):
            return None
        gpu = self._devices[device]
        return DeviceReading(
            device=f"gpu{device}", utilisation=gpu.utilisation, celsius=gpu.celsius,
            memory_used_bytes=(gpu.total_mb - gpu.free_mb) * _MB, memory_bytes=gpu.total_mb * _MB,
        )  # fmt: skip

    def readings_of(self, gpus: Sequence[int]) -> tuple[DeviceReading, ...]:
        """Return the latest readings of an attempt's GPUs, of the processors where it has none; empty before the first, and elsewhere."""
        if not self._here:
            return ()
        found = map(self.reading, gpus or (None,))
        return tuple(reading for reading in found if reading is not None)

    @asynccontextmanager
    async def measuring(self, gpus: Sequence[int]) -> AsyncIterator[EnergyMeter]:
        """Measure an attempt during the block."""
        await self.look()
        measured = EnergyMeter(gpus, self._joules, self._joules_of(gpus))
        for other in self._running:
            other.meets(measured)
        self._running.add(measured)
        try:
            yield measured
        finally:
            self._running.discard(measured)

    async def energy(self, measured: EnergyMeter) -> tuple[float | None, float | None]:
        """Return the energy of an attempt so far, of the processors and of its GPUs; None where it was not measured."""
        if not self._here:
            return None, None
        await self.look()
        return measured.until(self._joules, self._joules_of(measured.gpus))

    def _joules_of(self, gpus: Sequence[int]) -> float | None:
        told = [self._devices[number].joules for number in gpus if number < len(self._devices)]
        known = [joules for joules in told if joules is not None]
        return sum(known) if known and len(known) == len(gpus) else None


def _between(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or after < before else after - before


def _show(service: str, reading: DeviceReading) -> None:
    labels = (service, reading.device)
    metrics.DEVICE_MEMORY.labels(*labels).set(reading.memory_bytes)
    metrics.DEVICE_MEMORY_USED.labels(*labels).set(reading.memory_used_bytes)
    if reading.utilisation is not None:
        metrics.DEVICE_UTILISATION.labels(*labels).set(reading.utilisation)
    if reading.celsius is not None:
        metrics.DEVICE_TEMPERATURE.labels(*labels).set(reading.celsius)


def _hide(service: str, device: str) -> None:
    """Remove the metrics of a device that no longer answers."""
    for gauge in (
        metrics.DEVICE_MEMORY,
        metrics.DEVICE_MEMORY_USED,
        metrics.DEVICE_UTILISATION,
        metrics.DEVICE_TEMPERATURE,
    ):
        with suppress(KeyError):
            gauge.remove(service, device)
