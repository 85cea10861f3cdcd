"""What a machine tells of its processors and GPUs, and what becomes of what it does not tell."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from services.chassis.executor import devices
from services.chassis.executor.devices import Device, ProcessorEnergy, device_reader, read_processors
from services.chassis.executor.monitor import Monitor
from services.chassis.process.metrics import REGISTRY

MB = 1024 * 1024


class Nvml(SimpleNamespace):
    """NVML with two GPUs, of which the second tells nothing but its memory."""

    class NVMLError(Exception):
        pass

    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__(lost=False)

    def nvmlInit(self) -> None:  # noqa: N802 (NVML's name)
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        if self.lost:
            raise self.NVMLError
        return number

    def nvmlDeviceGetMemoryInfo(self, number: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=24_000 * MB, free=10_000 * MB)

    def _told(self, number: int, value: Any) -> Any:
        if number == 1:
            raise self.NVMLError
        return value

    def nvmlDeviceGetUtilizationRates(self, number: int) -> Any:  # noqa: N802
        return self._told(number, SimpleNamespace(gpu=85))

    def nvmlDeviceGetTemperature(self, number: int, sensor: int) -> Any:  # noqa: N802
        return self._told(number, 70)

    def nvmlDeviceGetTotalEnergyConsumption(self, number: int) -> Any:  # noqa: N802
        return self._told(number, 5_000)


def test_gpus_are_read_from_the_driver_and_what_they_do_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(devices, "_EVERY_SECONDS", -1.0)
    read = device_reader()
    assert read() == [Device(24_000, 10_000, 0.85, 70.0, 5.0), Device(24_000, 10_000)]
    nvml.lost = True
    assert read() == (), "numbers of GPUs could have moved"


def test_a_machine_without_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert device_reader()() == ()


def zone(root: Path, number: int, name: str, microjoules: int) -> None:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text("100000000\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")


def test_the_energy_of_the_packages_is_added_up_beyond_the_end_of_their_counters(tmp_path: Path) -> None:
    zone(tmp_path, 0, "package-0", 90_000_000)
    zone(tmp_path, 1, "package-1", 1_000_000)
    zone(tmp_path, 2, "psys", 5)
    energy = ProcessorEnergy(tmp_path)
    assert energy.read() == 0
    zone(tmp_path, 0, "package-0", 2_000_000)
    zone(tmp_path, 1, "package-1", 4_000_000)
    assert energy.read() == pytest.approx(12 + 3)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert energy.read() is None
    assert ProcessorEnergy(tmp_path / "none").read() is None


def test_processors_tell_their_load_and_invent_no_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    found = read_processors()
    assert 0 <= found.utilisation <= 1
    assert found.celsius is None
    sensors = {
        "coretemp": [SimpleNamespace(current=61.0), SimpleNamespace(current=64.5)],
        "nvme": [SimpleNamespace(current=90)],
    }
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert read_processors().celsius == 64.5


class Counter:
    """Energy that rises by 10 joules at every reading."""

    def __init__(self) -> None:
        self.joules = 0.0

    def read(self) -> float:
        self.joules += 10
        return self.joules


def monitor(found: Sequence[Device]) -> Monitor:
    return Monitor("toy", lambda: found, Counter())  # type: ignore[arg-type]


async def test_an_attempt_that_ran_alone_is_told_its_energy_and_one_that_shared_is_not() -> None:
    gpus = [Device(100, 50, joules=1000.0), Device(100, 50, joules=1.0)]
    watched = monitor(gpus)
    async with watched.measuring([0]) as alone:
        gpus[0] = Device(100, 50, joules=1600.0)
        assert await watched.energy(alone) == (10.0, 600.0)
    async with watched.measuring([0]) as first:
        async with watched.measuring([1]) as second:
            assert await watched.energy(second) == (None, 0.0), "another attempt used the processors too"
        async with watched.measuring([0]):
            pass
        assert await watched.energy(first) == (None, None)
    async with watched.measuring([]) as without:
        assert (await watched.energy(without))[1] is None


async def test_a_gpu_without_a_counter_has_no_energy() -> None:
    watched = monitor([Device(100, 50)])
    async with watched.measuring([0]) as measured:
        assert (await watched.energy(measured))[1] is None


async def test_the_metrics_have_what_the_devices_tell_and_forget_one_that_is_gone() -> None:
    found = [Device(100, 40, 0.5, 61.0)]
    watched = monitor(found)
    await watched.look()
    read = REGISTRY.get_sample_value

    def value(name: str, device: str) -> float | None:
        return read(f"neuroweaver_device_{name}", {"service": "toy", "device": device})

    assert value("utilisation_ratio", "gpu0") == 0.5
    assert value("temperature_celsius", "gpu0") == 61.0
    assert value("memory_used_bytes", "gpu0") == 60 * MB
    assert (value("memory_bytes", "cpu") or 0) > 0
    assert [reading.device for reading in watched.readings_of([0])] == ["gpu0"]
    assert [reading.device for reading in watched.readings_of([])] == ["cpu"]
    found.clear()
    await watched.look()
    assert value("utilisation_ratio", "gpu0") is None
    assert value("memory_bytes", "gpu0") is None


async def test_a_driver_that_does_not_answer_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.chassis.executor.monitor._ANSWER_SECONDS", 0.01)
    answer = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hangs() -> Sequence[Device]:
        asyncio.run_coroutine_threadsafe(answer.wait(), loop).result()
        return ()

    watched = Monitor("toy", hangs, Counter())  # type: ignore[arg-type]
    async with watched.measuring([]) as measured:
        assert await watched.energy(measured) == (None, None)
        assert watched.readings_of([]) == ()
    answer.set()
