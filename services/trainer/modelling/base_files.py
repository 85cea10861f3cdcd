"""Resolves the base model that a step names to a local folder, with the same checks and messages in every step."""

from errno import ENOENT
from pathlib import Path

from schemas.reasons import Reason, shown
from schemas.results import BASE_MODEL_SHA256
from services.chassis.executor.child import ChildTask, Context, UserFault
from services.chassis.storage.references import ReferenceFault, folder_digest, resolve_model

SEND_AGAIN = "send the job again, and do not change the files while it runs"


class BaseFault(Exception):
    """A base model's files cannot be used, whatever names them; whoever knows the request's reference adds it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message, self.remedy = message, remedy


def base_fault(reference: str, message: str, remedy: str) -> UserFault:
    """Make a fault of the base model that the request names."""
    return UserFault(Reason(field="base_model", value=shown(reference), message=message, remedy=remedy))


def base_folder(reference: str, task: ChildTask) -> Path:
    """Return the folder with the model's files, all of which jobs may read. Raises UserFault."""
    try:
        return resolve_model(reference, task.cache, task.allowed)
    except ReferenceFault as fault:
        raise base_fault(reference, fault.reason, fault.remedy) from fault


def base_digest(folder: Path, context: Context) -> str:
    """Return the digest of the model's files.

    Raises UserFault if it differs from the one that this job's prepare step recorded.
    """
    digest = folder_digest(folder, context.task.cache)
    if what := changed_since_checked(context, BASE_MODEL_SHA256, digest):
        raise base_fault(str(folder), what, SEND_AGAIN)
    return digest


def changed_since_checked(context: Context, fact: str, digest: str) -> str | None:
    """Return in words that an earlier step of the job recorded another digest as this fact; None if none did."""
    for step, result in context.task.results.items():
        if result.facts.get(fact, digest) != digest:
            return f"its files are not those that step {step} checked (sha256 {result.facts[fact]})"
    return None


def is_fault_of_machine(error: BaseException | None) -> bool:
    """Whether what a library raised while it read files comes from memory, disk, device or installation, not the files."""
    while error is not None:
        if isinstance(error, MemoryError | ImportError):
            return True
        if isinstance(error, OSError) and error.errno not in (None, ENOENT):
            return True
        if isinstance(error, RuntimeError) and any(mark in str(error) for mark in _OF_DEVICES):
            return True
        error = error.__cause__
    return False


_OF_DEVICES = ("CUDA", "out of memory", "can't allocate memory", "HIP error", "cuBLAS", "NCCL")
