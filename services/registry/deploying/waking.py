"""Waits for the next look at deployments: until one of them changes, until it is time, or until the service stops."""

import asyncio

from services.chassis.postgres.notifications import Subscription


async def until_woken(woken: Subscription, stop: asyncio.Event, seconds: float) -> None:
    """Wait until a deployment changes or `stop` is set, at most `seconds`."""
    waiting, stopping = asyncio.ensure_future(woken.wait(seconds)), asyncio.ensure_future(stop.wait())
    await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    stopping.cancel()
