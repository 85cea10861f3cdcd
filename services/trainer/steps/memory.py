"""Compares the memory that a training is estimated to take with what it took, and refuses one that no device here can hold."""

import logging
import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from schemas.reasons import Reason
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.methods import MethodSettings, trains_all
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.reward import RewardModelSettings
from schemas.recipes.sampled import SampledSettings
from schemas.recipes.sft import TrainingSettings
from services.chassis.executor.child import ChildTask, UserFault
from services.chassis.executor.control_group import memory_limit
from services.language_models.padding import common_size
from services.language_models.precision import compute_dtype, device
from services.trainer.engine.method import Method
from services.trainer.engine.schedule import micro_batch_size
from services.trainer.modelling.architecture import Architecture, architecture_of
from services.trainer.modelling.base import attention_of
from services.trainer.modelling.memory import MemoryEstimate, TrainedBatch, estimated, shared_among, weights_of
from services.trainer.modelling.packing import FLASH, packed_attention

_log = logging.getLogger(__name__)
_GB = 2**30


def estimate_of(
    architecture: Architecture,
    settings: MethodSettings,
    batch: TrainedBatch,
    teacher: Architecture | None = None,
    shards: int = 1,
) -> MemoryEstimate:
    """Return the estimate of a training on this machine's device, of each process if so many share the weights; a `teacher` is there as
    a whole."""
    where = device()
    dtype = compute_dtype(settings.precision, where)
    attention = attention_of(architecture, dtype, where, batch.length)
    if isinstance(settings, TrainingSettings) and settings.packing:
        attention = packed_attention(architecture, dtype, where)
        if attention == FLASH:  # it keeps as much of a row in a sequence as PyTorch's kernel of a row alone
            attention = architecture.attention
        else:
            batch = packed(batch, settings.max_length)
    found = estimated(
        architecture,
        None if trains_all(settings) else settings.lora,
        settings.optimiser,
        batch,
        dtype,
        settings.quantization,
        where.type,
        attention,
    )
    if shards > 1:
        found = shared_among(found, architecture.empty(), shards, where.type, trains_all=trains_all(settings))
    return found if teacher is None else replace(found, weights=found.weights + weights_of(teacher.empty(), dtype, "none"))


def batch_of(settings: MethodSettings, rows: int, length: int, supervised: int) -> TrainedBatch:
    """Return what is in memory at once for `rows` examples; a pair is two sequences, and a reward model makes no logits. Rows and
    logits are padded to common sizes."""
    width = common_size(length, max(length, settings.max_length))
    if isinstance(settings, RewardModelSettings):
        return TrainedBatch(2 * rows, width, 0)
    sides = 2 if isinstance(settings, PreferenceSettings) else 1
    return TrainedBatch(sides * rows, width, common_size(sides * rows * supervised))


def packed(batch: TrainedBatch, limit: int) -> TrainedBatch:
    """Return the sequences of at most `limit` tokens that rows of this length make; the mask has a value for each pair of tokens."""
    together = min(batch.rows, max(1, limit // batch.length))
    return TrainedBatch(math.ceil(batch.rows / together), together * batch.length, batch.supervised)


def rows_at_once(optimiser: OptimiserSettings) -> int:
    """Return the examples of a forward pass, as long as memory suffices."""
    return micro_batch_size(optimiser, 0)


def memory_metrics(
    base: Path, settings: MethodSettings, method: Method, task: ChildTask, teacher: Path | None = None
) -> Mapping[str, float]:
    """Return the measured peak of this process and the estimate, as metrics of a finished training."""
    metrics = {"memory_peak_bytes": float(measured_peak())}
    supervised = method.generated or max(_supervised(row) for row in method.rows)
    size = micro_batch_size(method.optimiser, task.memory_failures, task.processes)
    try:
        batch = batch_of(settings, size, method.longest, supervised)
        beside = None if teacher is None else architecture_of(teacher)
        found = estimate_of(architecture_of(base), settings, batch, beside, task.shards)
    except Exception as error:  # a finished training does not fail for its estimate
        _log.warning("no estimate of memory for this model (%s)", type(error).__name__)
        return metrics
    return {**metrics, "memory_estimate_bytes": float(found.total)}


def _supervised(row: Mapping[str, object]) -> int:
    counts = [
        sum(value != -100 for value in column) if name == "labels" else sum(column)
        for name, column in row.items()
        if isinstance(column, list | tuple) and (name == "labels" or name.endswith("_learnt"))
    ]
    return max(counts, default=0)


def measured_peak() -> int:
    """Return the most bytes that this process has held: on a GPU what its allocator has reserved, else resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available(shared: int | None = None) -> int:
    """Return the bytes of this machine's device; of main memory only those within the limit of the container, and of the `shared` bytes
    that the operator lets steps use."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[1])
    memory = psutil.virtual_memory().total
    return int(min(memory, memory_limit() or memory, memory if shared is None else shared))


def refuse_too_large(
    architecture: Architecture,
    settings: MethodSettings,
    section: str,
    length: int,
    memory: int,
    teacher: Architecture | None = None,
    shards: int = 1,
) -> None:
    """Raise UserFault if even one example at a time does not fit into `memory` bytes. A training that runs out of memory is
    tried again with fewer examples at a time, so only the least that it takes decides."""
    try:
        least = estimate_of(architecture, settings, batch_of(settings, 1, length, 1), teacher, shards)
    except UserFault:
        raise
    except Exception as error:  # an architecture whose forward pass cannot be traced is no fault
        _log.warning("no estimate of memory for this model (%s)", type(error).__name__)
        return
    if least.total <= memory:
        return
    what = f"one example of {length} tokens takes about {least.total / _GB:.1f} GiB ({words(least)}), and there are {memory / _GB:.1f}"
    limit = "max_prompt_tokens" if isinstance(settings, SampledSettings) else "max_length"
    less = (
        f"lower {section}.{limit}, or set activation_checkpointing"
        if least.activations > least.weights
        else "name a smaller base model"
    )
    smaller = ""
    if trains_all(settings):
        smaller = f", or set {section}.adaptation to lora"
    elif settings.quantization == "none":
        smaller = f", or set {section}.quantization to nf4"
    raise UserFault(Reason(field=section, message=f"the device's memory does not suffice: {what}", remedy=less + smaller))


def words(found: MemoryEstimate) -> str:
    """Return the largest parts in words."""
    parts = sorted(((getattr(found, name), name) for name in found.PARTS), reverse=True)
    return ", ".join(f"{name} {size / _GB:.1f}" for size, name in parts[:3])
