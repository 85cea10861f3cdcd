"""Tokens per second of a served version against the bare `transformers serve` with the same model and type, arms in turns.

The bare server runs with the library's threads, and again with one; the faster of both counts at each number of clients.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx2

from benchmarks.edge.servers import free_port
from schemas.artifacts import ArtifactRef
from services.chassis.storage.cache import CacheSettings
from services.chassis.storage.references import folder_digest
from services.chassis.storage.sources.settings import SourceSettings
from services.demo.base_model import install
from services.registry.deploying.driver import Target
from services.registry.deploying.files import Sources
from services.registry.deploying.local.base import ProcessOptions
from services.registry.deploying.local.driver import LocalDriver

CLIENTS = (1, 8, 32)
_SUBJECTS = ("a fox", "the sea", "a lighthouse", "two brothers", "a train", "winter", "a garden", "an old clock")
_TYPE = {"fp32": "float32", "bf16": "bfloat16"}
_START_SECONDS = 600


@dataclass(frozen=True)
class Arm:
    """A server to ask."""

    name: str
    address: str
    model: str
    headers: tuple[tuple[str, str], ...] = ()

    async def tokens_per_second(self, clients: int, tokens: int) -> float:
        """Let so many clients ask at once for an answer of so many tokens, and return the rate of all."""
        limits = httpx2.Limits(max_connections=clients)
        async with httpx2.AsyncClient(
            base_url=self.address, headers=dict(self.headers), trust_env=False, timeout=None, limits=limits
        ) as http:
            begun = time.perf_counter()
            made = await asyncio.gather(*(self._ask(http, number, tokens) for number in range(clients)))
            return sum(made) / (time.perf_counter() - begun)

    async def _ask(self, http: httpx2.AsyncClient, number: int, tokens: int) -> int:
        text = f"Tell me a long story number {number} about {_SUBJECTS[number % len(_SUBJECTS)]}."
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": tokens,
        }
        answer = await http.post("/v1/chat/completions", json=body)
        return int(answer.raise_for_status().json()["usage"]["completion_tokens"])


async def measure(quick: bool) -> dict[str, Any]:
    """Return `serving`, the ratios, and `cold_ready_seconds`, from the wish to a version that answers."""
    base = install(CacheSettings().cache, print)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        artifact, precision = _child(home, base)
        async with (
            _ours(home, base, artifact) as (own, seconds),
            _bare(base, precision, None) as bare,
            _bare(base, precision, 1) as alone,
        ):
            rates = await _rates(
                (own, bare, alone), CLIENTS[:2] if quick else CLIENTS, 1 if quick else 3, 12 if quick else 24
            )
    best = {clients: max(rates["bare"][clients], rates["bare, one thread"][clients]) for clients in rates["own"]}
    ratios = {f"ratio_bare_{clients}": rates["own"][clients] / best[clients] for clients in best}
    return {"serving": {**ratios, "tokens_per_second": rates}, "cold_ready_seconds": seconds}


async def _rates(arms: Sequence[Arm], clients: Sequence[int], rounds: int, tokens: int) -> dict[str, dict[int, float]]:
    """Return the median rate of each arm at each number of clients; the arms take turns, after one warm request each."""
    for arm in arms:
        await arm.tokens_per_second(1, 4)
    found: dict[str, dict[int, float]] = {arm.name: {} for arm in arms}
    for number in clients:
        taken: dict[str, list[float]] = {arm.name: [] for arm in arms}
        for _ in range(rounds):
            for arm in arms:
                taken[arm.name].append(await arm.tokens_per_second(number, 2 * tokens if number == 1 else tokens))
        for name, values in taken.items():
            found[name][number] = median(values)
            print(f"  {number:>2} clients, {name}: {found[name][number]:.1f} tokens/s", flush=True)
    return found


@asynccontextmanager
async def _ours(home: Path, base: Path, artifact: ArtifactRef) -> AsyncIterator[tuple[Arm, float]]:
    """Serve a version, an adapter on the base model, by the local driver."""
    allowed = SourceSettings().allowed(home / "closed", base.parent)
    driver = LocalDriver(Sources(str(home / "artifacts"), home / "cache", allowed), ProcessOptions(home / "logs"))
    try:
        begun = time.perf_counter()
        digest = folder_digest(base)
        await driver.ensure(Target("bench", "active", "bench", "1.0.0", artifact, "adapter", str(base), digest))
        while (slot := (await driver.observed())[0]).state == "starting":
            await asyncio.sleep(0.05)
        if slot.address is None:
            raise RuntimeError(f"{slot.reason}: {slot.message}")
        yield Arm("own", slot.address, slot.served, slot.headers), time.perf_counter() - begun
    finally:
        await driver.close()


@asynccontextmanager
async def _bare(base: Path, precision: str, threads: int | None) -> AsyncIterator[Arm]:
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("transformers")), "serve", str(base), "--port", str(port), "--host", "127.0.0.1",
        "--dtype", _TYPE[precision],
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        await _listens(address, process)
        yield Arm("bare" if threads is None else "bare, one thread", address, str(base))
    finally:
        process.kill()
        await process.wait()


async def _listens(address: str, process: asyncio.subprocess.Process) -> None:
    async with httpx2.AsyncClient(base_url=address, trust_env=False) as http, asyncio.timeout(_START_SECONDS):
        while process.returncode is None:
            try:
                await http.get("/health")
            except httpx2.HTTPError:
                await asyncio.sleep(0.1)
            else:
                return
    raise RuntimeError("transformers serve ended before it listened")


def _child(home: Path, base: Path) -> tuple[ArtifactRef, str]:
    """Make an adapter, in a process of its own, since it imports torch; return it and the type in which this machine computes."""
    code = (
        "import sys, torch; from pathlib import Path; from tests.changed_adapter import changed_adapter;"
        "from services.language_models.precision import compute_dtype, device;"
        "print(changed_adapter(Path(sys.argv[1]), Path(sys.argv[2])).model_dump_json());"
        "print('bf16' if compute_dtype('auto', device()) == torch.bfloat16 else 'fp32')"
    )
    command = [sys.executable, "-c", code, str(home), str(base)]
    *_, artifact, precision = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return ArtifactRef.model_validate_json(artifact), precision
