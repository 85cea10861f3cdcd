"""Builds the trainer service from its settings (composition root), without I/O; only the child imports torch."""

from fastapi import APIRouter

from schemas.topics import JOBS
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.executor.dispatcher import worker_tasks
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.executor.work import WorkEffects
from services.chassis.serving.api.logs import log_router
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.trainer.settings import TrainerSettings


def build(settings: TrainerSettings) -> Service:
    """Build the trainer. Every executor makes the same decisions, so its domain is the chassis' own."""
    runtime = Runtime(settings, "trainer", ExecutorDomain("trainer"), topics=(JOBS,), effects=WorkEffects())
    processes = settings.trainer_processes
    tasks = worker_tasks(runtime, SubprocessRunner("services.trainer.child", processes), gpus_together=processes)
    return assemble(runtime, router=APIRouter(), tasks=tasks, more=(log_router(settings.home, "trainer"),))
