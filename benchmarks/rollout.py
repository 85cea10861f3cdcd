"""What callers of a deployment see while its version changes: how long a change takes, and how many requests fail."""

import asyncio
import time
from statistics import median
from typing import Any

from tests.deploying import Callers, calling, deploy, serves
from tests.registry import Registry

CALLERS, TOKENS = 4, 4


async def measure(registry: Registry, quick: bool) -> dict[str, Any]:
    """Let callers ask the deployment of 1.0.0 all the time while it changes to 1.1.0 and back, and again; return the medians.

    `replace_seconds` goes from the wish for a version whose base model is served already to its first answer: its adapter is verified, loaded and
    asked before. `switch_seconds` goes from a rollback, to the version that is kept warm, to its first answer. `failed_requests_during_rollout`
    counts what was no answer.
    """
    forth, back = list[float](), list[float]()
    async with calling(registry, CALLERS, max_tokens=TOKENS) as callers:
        for _ in range(1 if quick else 3):
            await _answered(callers, "1.0.0")
            begun = time.perf_counter()
            await deploy(registry, "1.1.0")
            await _answered(callers, "1.1.0")
            forth.append(time.perf_counter() - begun)
            await serves(registry, "1.1.0")
            begun = time.perf_counter()
            answer = await registry.http.post(
                f"/deployments/{registry.job('support')}/rollback", json={"by": "ana", "reason": "The benchmark returns."}
            )
            answer.raise_for_status()
            await _answered(callers, "1.0.0")
            back.append(time.perf_counter() - begun)
            await serves(registry, "1.0.0")
    return {
        "replace_seconds": median(forth),
        "switch_seconds": median(back),
        "failed_requests_during_rollout": len(callers.failed),
        "requests_during_rollout": callers.versions.total() + len(callers.failed),
    }


async def _answered(callers: Callers, version: str) -> None:
    while callers.last != version:
        await asyncio.sleep(0.01)
