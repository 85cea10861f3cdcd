"""Builds the trainer service from its settings (composition root), without I/O; only the child imports torch."""

import json

from fastapi import APIRouter

from schemas.topics import JOBS
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.executor.dispatcher import worker_tasks
from services.chassis.executor.runner import StepRunner
from services.chassis.executor.slots import elsewhere
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.executor.warm import WarmProcess
from services.chassis.executor.work import WorkEffects
from services.chassis.process.transient import Loop
from services.chassis.reports.failed import ReportsFailures
from services.chassis.serving.api.logs import log_router
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.trainer.judging.service import SERVICE_VARIABLE
from services.trainer.on_ray import CLUSTER_VARIABLE
from services.trainer.settings import TrainerSettings
from services.trainer.tracking.tracked import Tracked
from services.trainer.tracking.tracker import Tracker


def build(settings: TrainerSettings) -> Service:
    """Build the trainer. Every executor makes the same decisions, so its domain is the chassis' own."""
    runtime = Runtime(settings, "trainer", ExecutorDomain("trainer"), topics=(JOBS,), effects=WorkEffects())
    on_ray = settings.trainer_launcher == "ray"
    machine = elsewhere(settings.trainer_ray_cpus, settings.trainer_ray_gpus) if on_ray else None
    warm = WarmProcess(settings.trainer_warm_seconds if settings.trainer_launcher == "local" else 0)
    runner: StepRunner = ReportsFailures(_runner(settings, warm))
    tracking: list[Loop] = []
    if settings.mlflow_tracking_uri is not None:
        tracker = Tracker(settings.mlflow_tracking_uri, settings.mlflow_experiment, settings.drain_seconds)
        runner, tracking = Tracked(runner, tracker), [tracker.run]
    tasks = [*worker_tasks(runtime, runner, processes=settings.trainer_processes, machine=machine), warm.run, *tracking]
    return assemble(runtime, router=APIRouter(), tasks=tasks, more=(log_router(settings.home, "trainer"),))


def _runner(settings: TrainerSettings, warm: WarmProcess) -> SubprocessRunner:
    service = {SERVICE_VARIABLE: settings.trainer_feedback_url} if settings.trainer_feedback_url else {}
    processes = settings.trainer_processes
    shards = processes if settings.trainer_strategy == "fsdp" else 1
    if settings.trainer_launcher != "ray":
        return SubprocessRunner("services.trainer.child", processes, service, warm, shards)
    cluster = json.dumps([settings.trainer_ray_address, settings.trainer_ray_cpus, settings.trainer_ray_gpus])
    return SubprocessRunner("services.trainer.on_ray", processes, {CLUSTER_VARIABLE: cluster, **service}, shards=shards)
