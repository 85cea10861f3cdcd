"""The drivers of a registry under their names: each slot is served by the one that its wish names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.deployments import DRIVERS, KSERVE, LOCAL, VLLM
from services.chassis.serving.problem import Problem
from services.registry.deploying.driver import Driver, Observed, Slot, Target
from services.registry.deploying.kserve.backend import kserve_driver
from services.registry.deploying.local.driver import local_driver
from services.registry.deploying.observing import first, seen
from services.registry.deploying.settings import ServingSettings
from services.registry.deploying.vllm.backend import vllm_driver
from services.registry.settings import RegistrySettings

_REMEDIES = {
    LOCAL: "start the registry with it",
    VLLM: "list the servers in NEUROWEAVER_SERVING_VLLM",
    KSERVE: "describe the cluster in NEUROWEAVER_SERVING_KSERVE",
}
_MAKERS: Mapping[str, Callable[[RegistrySettings], Driver]] = {
    LOCAL: local_driver, VLLM: vllm_driver, KSERVE: kserve_driver,
}  # fmt: skip
Slots = dict[tuple[str, Slot], Observed]


@dataclass(frozen=True, slots=True)
class DriverChoice:
    """Which drivers a registry has, and which of them serves a deployment that names none."""

    default: str = LOCAL
    configured: Sequence[str] = (LOCAL,)

    def chosen(self, asked: str | None) -> str:
        """Return the driver of a wish. Raises a 409 Problem for one that is not configured."""
        name = asked or self.default
        if name not in self.configured:
            detail = f"driver {name!r} is not configured, so nothing would serve the deployment; {_REMEDIES[name]}"
            raise Problem(409, "The driver is not configured", f"{detail}, or choose one of {', '.join(self.configured)}")
        return name


@dataclass
class Drivers:
    """Several drivers as one, see `services.registry.deploying.driver.Driver`."""

    named: Mapping[str, Driver]
    _without: Slots = field(default_factory=dict)
    """Slots whose driver is not configured any more."""

    async def ensure(self, target: Target) -> None:
        """Serve a target by the driver that it names."""
        if (driver := self.named.get(target.driver)) is not None:
            await driver.ensure(target)
            return
        what = f"driver {target.driver!r} is not configured any more"
        remedy = _REMEDIES.get(target.driver, f"use one of {', '.join(DRIVERS)}")
        message = f"{what}; {remedy}, or deploy the version with another driver"
        self._without[target.place] = seen(first(target), "failed", "DriverUnavailable", message)

    async def observed(self) -> Sequence[Observed]:
        """Return every slot."""
        found = [one for driver in self.named.values() for one in await driver.observed()]
        return sorted([*found, *self._without.values()], key=lambda one: (one.deployment, one.slot))

    async def remove(self, deployment: str, slot: Slot, drain_seconds: float) -> None:
        """Stop serving a slot, whichever driver has it."""
        self._without.pop((deployment, slot), None)
        for driver in self.named.values():
            await driver.remove(deployment, slot, drain_seconds)

    async def stand_by(self, drain_seconds: float) -> None:
        """Let another process serve."""
        self._without.clear()
        for driver in self.named.values():
            await driver.stand_by(drain_seconds)

    async def close(self) -> None:
        """Stop everything that this process serves."""
        for driver in self.named.values():
            await driver.close()


def drivers_of(settings: RegistrySettings) -> Drivers:
    """Return the drivers that are configured."""
    return Drivers({name: _MAKERS[name](settings) for name in settings.serving.configured})


def choice_of(serving: ServingSettings) -> DriverChoice:
    """Return what a deployment may name."""
    return DriverChoice(serving.driver, serving.configured)
