"""What a driver sees of slots that are served elsewhere."""

from services.registry.deploying.driver import Observed
from services.registry.deploying.remote.driver import RemoteDriver
from tests.toy import until


async def seen(driver: RemoteDriver, state: str, reason: str) -> Observed:
    """Wait until the first slot is in a state for a reason."""

    async def is_so() -> bool:
        slot = (await driver.observed())[0]
        return (slot.state, slot.reason) == (state, reason)

    await until(is_so, what=lambda: [slot.observed for slot in driver._slots.values()])
    return (await driver.observed())[0]
