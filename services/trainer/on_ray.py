"""Runs the child of a step on a Ray cluster, and is to the worker what that child would be here.

Messages and output come back; heartbeats, requests for a checkpoint and signals are sent on. The child ends when this process
ends, when the worker does not renew its lease, and when its node is lost, which is a fault of the infrastructure: the next
attempt goes on from the checkpoints, which all nodes see.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, Literal, NamedTuple, NoReturn

from schemas.jobs import StepFault
from schemas.progress import StepProgressed
from services.chassis.executor.child import Channel, die_with_worker, watch_worker
from services.chassis.executor.messages import (
    CHANNEL_VARIABLE,
    CHECKPOINT,
    LEASE_EXPIRED,
    MESSAGE,
    STACK_DUMP,
    ChildTask,
    FaultMessage,
    FinalMessage,
    ProgressMessage,
    RunningMessage,
    StoppedMessage,
)
from services.chassis.executor.text import storable
from services.chassis.process.redaction import redact_output
from services.trainer.judging.service import SERVICE_VARIABLE
from services.trainer.remote_child import RemoteChild, Said

CLUSTER_VARIABLE = "NEUROWEAVER_RAY_CLUSTER"
"""Environment variable with the `RayCluster`, in JSON."""
_PASSED = ("TMPDIR", SERVICE_VARIABLE)
"""Variables of the environment that the child gets on its node too."""
_POLL_SECONDS = 0.2
_HEARTBEAT_SECONDS = 1.0
_WAITING_SECONDS = 30.0
"""So often it is reported that a step still waits for a node."""
_SHOWN = 1000


class RayCluster(NamedTuple):
    """Where steps run, and what each reserves there."""

    address: str
    cpus: int
    gpus: int


def run_on_ray(module: str) -> NoReturn:
    """The main of a module that a worker starts instead of `module`, which then runs on the cluster."""
    redact_output()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    channel = Channel(int(os.environ.pop(CHANNEL_VARIABLE)))
    die_with_worker()
    line = sys.stdin.buffer.readline()
    task = ChildTask.model_validate_json(line)
    orders: queue.SimpleQueue[int | bytes] = queue.SimpleQueue()
    watching = (task.lease_seconds, lambda: orders.put(CHECKPOINT))
    threading.Thread(target=watch_worker, args=watching, name="watch-worker", daemon=True).start()
    for number in (signal.SIGTERM, STACK_DUMP):
        signal.signal(number, lambda number, _: orders.put(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    bridge = _Bridge(channel, task, orders)
    final = bridge.run(module, line, RayCluster(*json.loads(os.environ.pop(CLUSTER_VARIABLE))))
    if final is not None:
        channel.send(final)
    os._exit(bridge.returncode)  # the end of this process ends the actor; Ray's own shutdown may wait for the network


class _Bridge:
    """Between the worker's pipes and the actor."""

    def __init__(self, channel: Channel, task: ChildTask, orders: "queue.SimpleQueue[int | bytes]") -> None:
        self._channel, self._task, self._orders = channel, task, orders
        self._final: FinalMessage | None = None
        self.returncode = 0

    def run(self, module: str, line: bytes, cluster: RayCluster) -> FinalMessage | None:
        """Run the child to its end; returns its final message, None where the exit code says enough."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        try:
            ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
            remote: Any = ray.remote(RemoteChild)
            remote = remote.options(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_restarts=0, max_concurrency=4)
            self._pump(ray, remote.remote(module, line, {name: os.environ[name] for name in _PASSED if name in os.environ}))
        except ray.exceptions.OutOfMemoryError as error:
            return _fault("memory", error)
        except (ray.exceptions.RayError, ConnectionError) as error:
            return self._final or _fault("infrastructure", error)
        return self._final

    def _pump(self, ray: Any, child: Any) -> None:
        """Carry everything in both directions until the child has ended, or nobody waits for it any more."""
        started = False
        beaten, waiting = 0.0, time.monotonic()
        reference = child.said.remote(_POLL_SECONDS)
        while True:
            ready, _ = ray.wait([reference], timeout=_POLL_SECONDS)
            now = time.monotonic()
            for said in ray.get(reference) if ready else ():
                if self._ended(said):
                    return
            if ready:
                started, reference = True, child.said.remote(_POLL_SECONDS)
            if not started and now - waiting > _WAITING_SECONDS:
                waiting = now
                self._report_waiting()
            if started and now - beaten > _HEARTBEAT_SECONDS:
                beaten = now
                child.tell.remote(b"\n")
            while not self._orders.empty():
                order = self._orders.get()
                if isinstance(order, bytes):
                    child.tell.remote(order)
                elif started:
                    child.signal.remote(int(order))
                elif order == signal.SIGTERM:
                    self._final = StoppedMessage()
                    return

    def _ended(self, said: Said) -> bool:
        if said.output:
            sys.stderr.buffer.write(said.output)
            sys.stderr.buffer.flush()
        if said.message:
            message = MESSAGE.validate_json(said.message)
            if isinstance(message, RunningMessage):
                self._channel.send(message)
            else:
                self._final = message
        if said.returncode is None:
            return False
        self.returncode = max(0, said.returncode)
        if self._final is None and said.fault is not None and said.returncode != LEASE_EXPIRED:
            self._final = FaultMessage(fault=said.fault)
        return True

    def _report_waiting(self) -> None:
        task = self._task
        about = {"job_id": task.job_id, "step": task.step, "attempt": task.attempt, "kind": task.kind}
        report = StepProgressed(**about, done=0, of=1, unit="nodes of the Ray cluster")
        self._channel.send(ProgressMessage(progress=report))


def _fault(cause: Literal["infrastructure", "memory"], error: BaseException) -> FaultMessage:
    said = storable(f"{type(error).__name__}: {error}")[:_SHOWN]
    return FaultMessage(fault=StepFault(cause=cause, message=f"the step on the Ray cluster was lost: {said}"))


if __name__ == "__main__":
    run_on_ray("services.trainer.child")
