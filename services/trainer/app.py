"""The trainer's composition root: settings in, a service out, no I/O yet, and no torch: that is the child's."""

from fastapi import APIRouter

from schemas.topics import JOBS
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.executor.work import WorkEffects
from services.chassis.executor.worker import worker_tasks
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.trainer.settings import TrainerSettings


def build(settings: TrainerSettings) -> Service:
    """The trainer. All that it decides is what every executor decides, so its domain is the chassis' own."""
    runtime = Runtime(settings, "trainer", ExecutorDomain("trainer"), topics=(JOBS,), effects=WorkEffects())
    tasks = worker_tasks(runtime, SubprocessRunner("services.trainer.child"))
    return assemble(runtime, router=APIRouter(), tasks=tasks)
