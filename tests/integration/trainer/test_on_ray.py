"""A step on a Ray cluster reports, stops and resumes as it does on the trainer's machine."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas.artifacts import ArtifactRef
from schemas.progress import StepProgressed
from services.chassis.executor.runner import Completed, Failed, Outcome, Stopped, StopReason, Work, WorkContext
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.settings import ServiceSettings
from services.trainer.on_ray import CLUSTER_VARIABLE
from services.trainer.settings import TrainerSettings
from tests.integration.trainer.test_split import settings
from tests.split import Split
from tests.steps import request

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a cluster of one node for these tests, and return its address."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short
    started = ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, object_store_memory=80 * 2**20,
        _node_ip_address="127.0.0.2", _temp_dir=folder,
    )  # fmt: skip
    yield started.address_info["gcs_address"]
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    patch.undo()


class Run:
    """One run of a step of the test child on the cluster."""

    def __init__(self, home: Path, cluster: str, step: str, attempt: int = 1) -> None:
        self.work = Work(request(step=step, attempt=attempt), f"lease-{attempt}")
        self.progress: list[StepProgressed] = []
        self.context = WorkContext(ServiceSettings(home=home, lease_seconds=600), "toy", self.progress.append)
        self.runner = SubprocessRunner("tests.on_ray", environment={CLUSTER_VARIABLE: json.dumps([cluster, 1, 0])})
        self.log = home / "logs" / "toy" / "job-1" / step / f"{attempt}.log"
        self.counted = home / "checkpoints" / "job-1" / step / str(attempt) / f"lease-{attempt}"

    async def outcome(self, act: Callable[["Run"], Any] | None = None) -> Outcome:
        """Run to the end; `act` when the child has counted to 3."""
        running = asyncio.create_task(self.runner.run(self.work, self.context))
        count = self.counted / "count"
        while act is not None and not running.done():
            if count.exists() and int(count.read_text()) >= 3:
                act(self)
                act = None
            await asyncio.sleep(0.02)
        return await running


async def test_a_step_whose_worker_is_lost_or_that_is_stopped_goes_on_from_its_checkpoint(
    tmp_path: Path, cluster: str
) -> None:
    children: list[psutil.Process] = []

    def kill_the_actor(run: Run) -> None:
        children.append(psutil.Process(int((run.counted / "pid").read_text())))
        children[0].parent().send_signal(signal.SIGKILL)  # type: ignore[union-attr]

    outcome = await Run(tmp_path, cluster, "checkpointing", 1).outcome(kill_the_actor)
    assert isinstance(outcome, Failed)
    assert outcome.fault.cause == "infrastructure"
    assert outcome.fault.message.startswith("the step on the Ray cluster was lost: ActorDiedError")
    assert psutil.wait_procs(children, timeout=120)[0] == children, "the child ends with the actor"
    stopped = Run(tmp_path, cluster, "checkpointing", 2)
    assert isinstance(await stopped.outcome(lambda run: run.context.request_stop(StopReason.DRAIN)), Stopped)
    until = int((stopped.counted / "count").read_text()) + 2
    (tmp_path / "checkpoints" / "until").write_text(str(until))
    resumed = Run(tmp_path, cluster, "checkpointing", 3)
    finished = await resumed.outcome()
    assert isinstance(finished, Completed)
    assert finished.result.metrics == {"first": until - 2, "last": until}
    assert resumed.progress
    assert {(report.step, report.of) for report in resumed.progress} == {("checkpointing", 1000)}


async def test_the_output_and_the_end_of_a_child_come_back(tmp_path: Path, cluster: str) -> None:
    run = Run(tmp_path, cluster, "vanish")
    outcome = await run.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.fault.message == "the process ended with exit code 3 and no result"
    crashed = await Run(tmp_path, cluster, "crash").outcome()
    assert isinstance(crashed, Failed)
    assert "last line of the library" in crashed.fault.log_tail


def test_a_training_on_the_cluster_that_is_killed_and_stopped_makes_the_artifact_of_one_on_this_machine(
    tmp_path: Path, cluster: str, base: Path, dataset: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def on_ray(attempt: int) -> Split:
        environment = {CLUSTER_VARIABLE: json.dumps([cluster, 1, 0])}
        return Split(
            tmp_path, settings(base), {"dataset": dataset}, 1, attempt, module="tests.held_on_ray", environment=environment
        )

    def kill_the_actor(run: Split) -> None:
        [child] = run.processes("tests.held_training")
        child.parent().kill()  # type: ignore[union-attr]

    killed = on_ray(1).run(2, kill_the_actor)
    assert isinstance(killed, Failed)
    assert killed.fault.message.startswith("the step on the Ray cluster was lost: ActorDiedError")
    stopped = on_ray(2)
    assert isinstance(stopped.run(4, Split.stop), Stopped)
    assert [path.name for path in stopped.checkpoints.glob("2/*/step-*")] == ["step-00000004"]
    resumed, here = on_ray(3).run(), Split(tmp_path / "here", settings(base), {"dataset": dataset}, 1).run()
    assert isinstance(resumed, Completed)
    assert isinstance(here, Completed)
    assert resumed.result.outputs["adapter"].sha256 == here.result.outputs["adapter"].sha256
    assert resumed.result.facts == here.result.facts
    assert "continuing from checkpoint" in stopped.log.read_text()


def test_ray_needs_an_address() -> None:
    with pytest.raises(ValueError, match="set NEUROWEAVER_TRAINER_RAY_ADDRESS to the cluster's address"):
        TrainerSettings(trainer_launcher="ray")
