"""The four services as four processes on real servers, as a deployment has them, and an outsider that talks to them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psutil

from schemas.envelope import Event, encode
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequested
from schemas.steps import SERVICES
from schemas.topics import JOBS, REQUESTS
from services.chassis.executor.messages import ORDERS_VARIABLE
from services.chassis.kafka.publisher import make_producer, outside_event
from services.devstack.stack import DevStack
from tests.command import ended, run
from tests.log import read_events

_HTTP = httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=0))
"""Creating a client for each call, as `httpx2.get` does, costs more than the call; it keeps no connections, since services
are killed."""


@dataclass
class Process:
    """One service process, which may be killed and started again."""

    name: str
    port: int
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and return at once."""
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "services.cli.main", "serve", self.name]
            self.process = subprocess.Popen(command, env=dict(self.env), stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def get(self, path: str) -> Any:
        """Return JSON of its HTTP API."""
        return _HTTP.get(f"http://127.0.0.1:{self.port}/api/v1{path}", timeout=60).raise_for_status().json()

    @contextmanager
    def restarted_with(self, **env: str) -> Iterator[None]:
        """Run it with more environment variables during the block."""
        usual = self.env
        try:
            self._restart({**usual, **env})
            yield
        finally:
            self._restart(usual)

    def _restart(self, env: Mapping[str, str]) -> None:
        self.stop()
        self.env = env
        self.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it reports that it is ready."""
        wait_for(lambda: self._is_ready(), lambda: f"{self.name}: {self.log.read_text()[-3000:]}")

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-3000:]}"
        try:
            return _HTTP.get(f"http://127.0.0.1:{self.port}/api/v1/health/ready", timeout=30).status_code == 200
        except httpx2.HTTPError:
            return False

    def children(self) -> list[psutil.Process]:
        """Return the processes of its steps: those that it started, and those that its warm process forked."""
        warm = self.warm()
        started = [child for child in psutil.Process(self.pid).children() if child not in warm]
        return started + [child for process in warm for child in _children(process)]

    def warm(self) -> list[psutil.Process]:
        """Return its warm process; also one whose last children still run."""
        return [child for child in psutil.Process(self.pid).children() if ORDERS_VARIABLE in _variables(child)]

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@dataclass
class System:
    """All four services, with the queries that tests need."""

    stack: DevStack
    home: Path
    base_model: Path
    services: dict[str, Process] = field(default_factory=dict)

    def url(self, service: str, path: str) -> str:
        """Return the address of a route."""
        return f"http://127.0.0.1:{self.services[service].port}/api/v1{path}"

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return a small valid request for few steps of a tiny model; `changes` replace top-level fields."""
        small = {"steps": 4, "batch_size": 4, "learning_rate": 0.01}
        return {
            "job_id": f"job-{uuid4().hex[:8]}",
            "requester": "e2e",
            "pipeline": "sft",
            "base_model": str(self.base_model),
            "dataset": {"reference": str(self.home / "data"), "split": {"validation": None}},
            "training": {"optimiser": small, "max_length": 160, "precision": "fp32", "checkpoint_steps": 2},
            "sampling": {"n": 3, "prompts": 6, "max_new_tokens": 12},
            "feedback": {"margin": 0.0001},
            "preference": {"optimiser": {"steps": 2, "batch_size": 4}, "max_length": 200, "precision": "fp32"},
            "evaluation": {"metrics": ["loss", "exact_match"], "max_new_tokens": 8, "samples": 1},
            "register_as": f"model-{uuid4().hex[:8]}",
            **changes,
        }

    def start_job(self, **changes: Any) -> str:
        """POST a request and return the accepted job's id."""
        answer = httpx2.post(self.url("orchestrator", "/training/start"), json=self.request(**changes), timeout=60)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    async def publish(self, request: dict[str, Any]) -> None:
        """Publish one event on the requests topic, as RelayCore does, and return when the job can be read over HTTP."""
        job_id = request["job_id"]
        await self.send(JobRequested(job_id=job_id, request=request))
        wait_for(lambda: self._knows(job_id), lambda: "the job does not appear")

    async def send(self, data: JobRequested | JobControlRequested | JobCancelRequested) -> None:
        """Publish what an outsider asks for on the requests topic."""
        value, headers = encode(outside_event("relaycore", data, correlation_id=data.job_id))
        producer = make_producer(self.stack.cluster, "relaycore")
        await producer.start()
        await producer.send_and_wait(REQUESTS.name, value, data.job_id.encode(), headers=headers)
        await producer.stop()

    async def control(self, route: str, job_id: str, control: str, priority: int | None = None) -> None:
        """Ask for a change of a job by `event`, over `http` or with the `command`; the last two are accepted when this returns."""
        more = {} if priority is None else {"priority": priority}
        match route:
            case "event":
                await self.send(JobControlRequested(job_id=job_id, control=control, requester="relaycore", **more))
            case "http":
                answer = _HTTP.post(self.url("orchestrator", f"/training/{job_id}/{control}"), json=more, timeout=60)
                assert answer.status_code == 202, answer.text
            case "command":
                done = await run(
                    self.url("orchestrator", "").removesuffix("/api/v1"), "jobs", control, job_id, *map(str, more.values())
                )
                assert done.code == 0, done.err

    def _knows(self, job_id: str) -> bool:
        return _HTTP.get(self.url("orchestrator", f"/training/{job_id}"), timeout=60).status_code == 200

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the orchestrator's view of a job."""
        job: dict[str, Any] = self.services["orchestrator"].get(f"/training/{job_id}")
        return job

    def wait_job(self, job_id: str, status: str = "completed") -> dict[str, Any]:
        """Wait until the job has ended with `status`."""
        ended = ("completed", "failed", "cancelled", "rejected")
        wait_for(lambda: self.job(job_id)["status"] in ended, lambda: json.dumps(self.job(job_id), indent=1))
        job = self.job(job_id)
        assert job["status"] == status, json.dumps(job, indent=1)
        return job

    def made_at_once(self, jobs: int) -> list[str]:
        """Start jobs at the same time, and return the version of one model that each of them makes."""
        pipeline = [
            {"name": "prepare", "kind": "prepare"},
            {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
            {"name": "register", "kind": "register", "inputs": {"adapter": "train.adapter"}},
        ]
        begun = [self.start_job(pipeline=pipeline, register_as="shared", requester=f"tenant-{n}") for n in range(jobs)]
        return [str(self.wait_job(job_id)["version"]) for job_id in begun]

    async def history(self, job_id: str, topic: str = JOBS.name) -> list[Event]:
        """Return the job's events on a topic, in the order of the log."""
        return [e for e in await read_events(self.stack.kafka_bootstrap, topic) if e.correlation_id == job_id]


def _variables(process: psutil.Process) -> Mapping[str, str]:
    try:
        return process.environ()
    except psutil.Error:  # it has ended
        return {}


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error:
        return []


def neuroweaver(system: System, *arguments: str) -> tuple[int, Any]:
    """Run a command as an operator does, and return its exit code and JSON."""
    done = ended([*arguments, "--json"], system.services["registry"].env)
    assert done.out, done.err
    return done.code or 0, done.json


def wait_for(condition: Callable[[], bool], what: Callable[[], str], seconds: float = 600) -> None:
    """Poll until the condition holds; fails with `what()` after a time that is long for any machine."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.1)


@contextmanager
def running_system(stack: DevStack, home: Path, base_model: Path) -> Iterator[System]:
    """Run the four services until they are ready."""
    system = System(stack, home, base_model)
    write_data(home / "data")
    with ExitStack() as started:
        ports = {name: free_port() for name in SERVICES}
        for name, port in ports.items():
            process = Process(name, port, {}, home / f"{name}.log")
            process.env = {
                **os.environ,
                "NEUROWEAVER_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
                "NEUROWEAVER_DATABASE_URL": stack.database_url,
                "NEUROWEAVER_HOME": str(home),
                "NEUROWEAVER_SOURCES_FOLDERS": f"{home / 'data'},{home / 'tasks'},{base_model}",
                "NEUROWEAVER_SOURCES_HOSTS": "127.0.0.1",
                "NEUROWEAVER_TRAINER_FEEDBACK_URL": f"http://127.0.0.1:{ports['feedback']}",
                "NEUROWEAVER_HTTP_PORT": str(process.port),
                "NEUROWEAVER_LEASE_SECONDS": "6",
                "NEUROWEAVER_SLOT_CORES": "5",
                "NEUROWEAVER_SLOT_MEMORY_MB": "16384",
                "NEUROWEAVER_STEP_CORES": "1",
                "NEUROWEAVER_STEP_MEMORY_MB": "1",
                "NEUROWEAVER_POLICY_BACKOFF_SECONDS": "0.5",
                "NEUROWEAVER_DRAIN_SECONDS": "60",
                "OMP_NUM_THREADS": "1",
            }
            process.start()
            started.callback(process.stop)
            system.services[name] = process
        for process in system.services.values():
            process.wait_ready()
        yield system


def write_data(folder: Path) -> None:
    """Write forty training rows and eight held-out rows."""
    folder.mkdir(parents=True)
    for split, count in (("train", 40), ("test", 8)):
        rows = [{"prompt": f"{split} {number}?", "completion": f"yes {number % 5}"} for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
