"""The feedback service's composition root: settings in, a service out, no I/O yet, and no torch: that is the child's."""

from schemas.topics import JOBS
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.executor.work import WorkEffects
from services.chassis.executor.worker import worker_tasks
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.feedback.api import router
from services.feedback.settings import FeedbackSettings


def build(settings: FeedbackSettings) -> Service:
    """The feedback service. All that it decides is what every executor decides, so its domain is the chassis' own."""
    runtime = Runtime(settings, "feedback", ExecutorDomain("feedback"), topics=(JOBS,), effects=WorkEffects())
    tasks = worker_tasks(runtime, SubprocessRunner("services.feedback.child"))
    return assemble(runtime, router=router(runtime), tasks=tasks)
