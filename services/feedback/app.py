"""Builds the feedback service from its settings (composition root), without I/O; only the child imports torch."""

from schemas.topics import JOBS
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.executor.dispatcher import worker_tasks
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.executor.work import WorkEffects
from services.chassis.reports.failed import ReportsFailures
from services.chassis.serving.api.logs import log_router
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.feedback.api import router
from services.feedback.judging.api import judgement_router
from services.feedback.judging.judges import Judges
from services.feedback.settings import FeedbackSettings


def build(settings: FeedbackSettings) -> Service:
    """Build the feedback service. Every executor makes the same decisions, so its domain is the chassis' own."""
    runtime = Runtime(settings, "feedback", ExecutorDomain("feedback"), topics=(JOBS,), effects=WorkEffects())
    judges = Judges(settings)
    tasks = (*worker_tasks(runtime, ReportsFailures(SubprocessRunner("services.feedback.child"))), judges.run)
    more = (judgement_router(judges), log_router(settings.home, "feedback"))
    return assemble(runtime, router=router(runtime), tasks=tasks, more=more)
