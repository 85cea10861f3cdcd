"""Estimates what the steps need that compress a model, and those whose judge is a model.

The kernel takes the memory of mapped files back when it runs short, so they do not count here.
"""

from collections.abc import Sequence
from functools import partial

from schemas.jobs import StepNeed
from schemas.reasons import Reason
from schemas.recipes.compression import CompressionSettings
from schemas.recipes.feedback import JudgeSettings
from schemas.steps import JudgedAtOnce
from services.chassis.executor.child import ChildTask, UserFault
from services.chassis.storage.references import ReferenceFault, resolve_local_model
from services.trainer.modelling.architecture import Architecture, architecture_of
from services.trainer.modelling.base_files import BaseFault
from services.trainer.modelling.judge_memory import Judged
from services.trainer.steps.inference_memory import LoadedFiles, compression_memory, judging_memory
from services.trainer.steps.need_bytes import device_bytes, need_of_bytes, traced

_GB = 2**30


def compression_need(
    base: Architecture, compressions: Sequence[CompressionSettings], longest: int, memory: int
) -> StepNeed | None:
    """Return the largest need, as if each merged an adapter and were compared on rows. Raises UserFault for a compression that `memory`
    bytes cannot hold even without both."""
    found = [need for one in compressions if (need := traced(partial(_compression, base, one, longest))) is not None]
    largest = max(found, key=device_bytes, default=None)
    if largest is not None and device_bytes(largest) > memory:
        for one in compressions:
            _refuse_too_large(base, one, memory)
    return largest


def _compression(base: Architecture, settings: CompressionSettings, longest: int) -> StepNeed:
    _, found = compression_memory(LoadedFiles(base, 0, adapted=True), settings, longest)
    return need_of_bytes(found.total, 4 * base.parameters)


def _refuse_too_large(base: Architecture, settings: CompressionSettings, memory: int) -> None:
    _, least = compression_memory(LoadedFiles(base, 0), settings, None)
    if least.total <= memory:
        return
    what = f"{settings.method} holds the model in fp32 and what it makes, about {least.total / _GB:.1f} GiB"
    message = f"the device's memory does not suffice: {what}, and there are {memory / _GB:.1f}"
    remedy = "name a smaller base model, leave the step out, or run the job where there is more memory"
    raise UserFault(Reason(field="compression", message=message, remedy=remedy))


def judge_here(judge: JudgeSettings, base: Architecture, task: ChildTask) -> Architecture | None:
    """Return the model that a local judge loads: the base model, or one in a folder of this machine. None for another, which only
    the feedback service fetches, and for one that it will refuse."""
    if judge.reward_model is not None:
        return None
    if judge.model is None:
        return base
    try:
        return architecture_of(resolve_local_model(judge.model, task.cache, task.allowed))
    except (ReferenceFault, BaseFault):
        return None


def judging_need(judge: Architecture, judged: JudgedAtOnce, longest: int) -> StepNeed:
    """Return the need of judging answers to prompts of at most so many tokens."""
    texts = Judged(longest, judged.tokens, judged.answers)
    _, found = judging_memory(LoadedFiles(judge, 0), judged.feedback, texts)
    return need_of_bytes(found.total, found.weights)
