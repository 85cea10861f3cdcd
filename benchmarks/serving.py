"""Tokens per second of a deployment, through the registry's address, against the bare `transformers serve` with the same model and
type, arms in turns.

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

from benchmarks import rollout
from benchmarks.edge.servers import free_port
from benchmarks.full_loop import Servers
from schemas.artifacts import ArtifactRef
from services.chassis.process.logging import configure
from services.chassis.storage.cache import CacheSettings
from services.chassis.storage.references import folder_digest
from services.demo.base_model import install
from services.registry.deploying.local.driver import local_driver
from tests.deploying import deploy, serves
from tests.registry import Registry

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

    async def tokens_per_second(self, clients: int, tokens: int) -> float:
        """Let so many clients ask at once for an answer of so many tokens, and return the rate of all."""
        limits = httpx2.Limits(max_connections=clients)
        async with httpx2.AsyncClient(base_url=self.address, trust_env=False, timeout=None, limits=limits) as http:
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
        answer = await http.post("/chat/completions", json=body)
        return int(answer.raise_for_status().json()["usage"]["completion_tokens"])


async def measure(servers: Servers, quick: bool) -> dict[str, Any]:
    """Return `serving`, the ratios, `cold_ready_seconds`, from the wish to a version that answers, and what `rollout` measures."""
    configure("ERROR")
    base = install(CacheSettings().cache, print)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        first, second, precision = _children(home, base)
        registry = Registry(servers.bootstrap, servers.database_url, home, lambda: local_driver(registry.settings))
        async with registry.running():
            await _registered(registry, "first", first, base)
            begun = time.perf_counter()
            await deploy(registry, "1.0.0")
            await serves(registry, "1.0.0")
            ready = time.perf_counter() - begun
            rates = await _against_bare(registry, base, precision, quick)
            await _registered(registry, "second", second, base)
            switching = await rollout.measure(registry, quick)
    best = {clients: max(rates["bare"][clients], rates["bare, one thread"][clients]) for clients in rates["own"]}
    ratios = {f"ratio_bare_{clients}": rates["own"][clients] / best[clients] for clients in best}
    return {"serving": {**ratios, "tokens_per_second": rates}, "cold_ready_seconds": ready, **switching}


async def _registered(registry: Registry, job: str, artifact: ArtifactRef, base: Path) -> None:
    step = registry.step(job, "router", artifact, base=(str(base), folder_digest(base)), data={"dataset_sha256": job})
    await registry.ask(step)
    await registry.result(step)


async def _against_bare(registry: Registry, base: Path, precision: str, quick: bool) -> dict[str, dict[int, float]]:
    own = Arm("own", str(registry.callers.base_url), registry.job("support"))
    async with _bare(base, precision, None) as bare, _bare(base, precision, 1) as alone:
        return await _rates((own, bare, alone), CLIENTS[:2] if quick else CLIENTS, 1 if quick else 3, 12 if quick else 24)


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
        yield Arm("bare" if threads is None else "bare, one thread", f"{address}/v1", str(base))
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


def _children(home: Path, base: Path) -> tuple[ArtifactRef, ArtifactRef, str]:
    """Make two adapters, in a process of their own, since it imports torch; return them and the type in which this machine computes."""
    code = (
        "import sys, torch; from pathlib import Path; from tests.changed_adapter import changed_adapter;"
        "from services.language_models.precision import compute_dtype, device;"
        "home, base = map(Path, sys.argv[1:]);"
        "print(changed_adapter(home, base).model_dump_json());"
        "print(changed_adapter(home, base, seed=1).model_dump_json());"
        "print('bf16' if compute_dtype('auto', device()) == torch.bfloat16 else 'fp32')"
    )
    command = [sys.executable, "-c", code, str(home), str(base)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    first, second, precision = said[-3:]
    return ArtifactRef.model_validate_json(first), ArtifactRef.model_validate_json(second), precision
