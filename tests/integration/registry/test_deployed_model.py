"""A registered version is served by the local driver, from the wish to the words of a tiny model, and through the death of its process."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import torch

from schemas.artifacts import ArtifactRef
from schemas.lines import Message
from services.chassis.storage.references import folder_digest
from services.chassis.storage.sources.settings import SourceSettings
from services.language_models.chat_format.chat import Chat
from services.language_models.generation import SamplingParams, generate
from services.language_models.precision import compute_dtype
from services.registry.deploying.local.driver import LocalDriver, local_driver
from services.trainer.modelling.adapter import load_for_inference
from tests.changed_adapter import changed_adapter
from tests.deploying import call, deploy, question, serves, shown, told
from tests.registry import Registry
from tests.tiny_model import build
from tests.toy import until

QUESTION = "What is it?"
"""The question of the recorded answers."""


class Drivers:
    """Makes the driver of a registry and keeps it for a test to look at."""

    def __init__(self) -> None:
        self.registry: Registry | None = None
        self.made: list[LocalDriver] = []

    def __call__(self) -> LocalDriver:
        assert self.registry is not None
        self.made.append(local_driver(self.registry.settings))
        return self.made[-1]

    @property
    def pid(self) -> int | None:
        """The one process that serves; None while it is started again."""
        (base,) = self.made[-1]._bases.values()
        return None if base.server is None else base.server.pid

    def let_go(self) -> None:
        """Close the pipe to the process, as it is closed when its parent is gone."""
        (base,) = self.made[-1]._bases.values()
        assert base.server is not None
        stdin = base.server._process.stdin
        assert stdin is not None
        stdin.close()


def evaluated(base: Path, adapter: Path) -> str:
    """Return what the evaluate step writes for the question."""
    cpu = torch.device("cpu")
    model, chat = load_for_inference(base, adapter, compute_dtype("auto", cpu), cpu), Chat(adapter)
    prompts = chat.prompts([[Message(role="user", content=QUESTION)]])
    made = generate(model, prompts, [[None]], SamplingParams(chat.stop_ids, chat.pad_id, 48))
    return chat.text(made[0][0])


def cut_short(file: Path) -> None:
    """Take the last byte away, which a full disk or a broken copy may do."""
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1])


async def test_a_version_is_deployed_answers_as_it_was_evaluated_and_is_started_again_when_its_process_is_killed(
    kafka: str, database_url: str, tmp_path: Path
) -> None:
    drivers = Drivers()
    registry = drivers.registry = Registry(kafka, database_url, tmp_path, drivers)
    allowed = SourceSettings(folders=(tmp_path / "base",))
    registry.settings = registry.settings.model_copy(update={"sources": allowed})
    base = build(tmp_path / "base")
    artifact: ArtifactRef = await asyncio.to_thread(changed_adapter, tmp_path, base)
    said = await asyncio.to_thread(evaluated, base, Path(artifact.uri))
    async with registry.running():
        recorded = registry.predictions(first=said)
        step = registry.step("job-1", "router", artifact, base=(str(base), folder_digest(base)), predictions=recorded)
        await registry.ask(step)
        await registry.result(step)
        await deploy(registry, "candidate", rollout={"deadline_seconds": 300})
        await serves(registry, "1.0.0")
        asked = question(registry.job("support"), temperature=0, max_tokens=4)
        answer = await registry.callers.post("/chat/completions", json=asked)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] in range(1, 5)
        assert (await registry.callers.post("/chat/completions", json={**asked, "colour": 1})).status_code == 400

        recorded_question = {**asked, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 48}
        answered = (await registry.callers.post("/chat/completions", json=recorded_question)).json()
        assert answered["choices"][0]["message"]["content"] == said

        first = drivers.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: drivers.pid not in (None, first))
        await serves(registry, "1.0.0")
        assert (await call(registry)).status_code == 200
        same = await registry.callers.post("/chat/completions", json=asked)
        assert same.json()["choices"] == answer.json()["choices"]
        view = await shown(registry)
        assert (view["generation"], view["given_up"]) == (1, None)
        assert told(registry)[:2] == ["Requested 1.0.0", "Ready 1.0.0"]

        step = registry.step("job-2", "router", artifact, base=(str(base), folder_digest(base)), predictions=recorded)
        await registry.ask(step)
        await registry.result(step)
        again = (await registry.http.get(f"/models/{registry.name('router')}")).json()["version"]
        cut_short(Path(artifact.uri) / "adapter_model.safetensors")
        await deploy(registry, again)
        await until(lambda: f"RolledBack {again}" in told(registry), what=lambda: told(registry))
        assert (await shown(registry))["given_up"]["reason"] == "DigestMismatch"
        assert (await registry.callers.post("/chat/completions", json=asked)).json()["choices"] == answer.json()["choices"]
        assert await registry.differences() == 0
        last = drivers.pid
        assert last is not None
        drivers.let_go()
        await until(lambda: not psutil.pid_exists(last))
