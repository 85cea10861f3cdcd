"""Turns an estimate of bytes into what a step needs of this machine: of its main memory, and of its GPU if it has one."""

import logging
from collections.abc import Callable
from typing import TypeVar

from schemas.jobs import StepNeed
from services.chassis.executor.child import UserFault
from services.language_models.precision import device

_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")
_HOST_BYTES = 2 * 2**30
"""Main memory of a process that computes on a GPU, besides the weights, which pass through it."""


def need_of_bytes(total: int, weights: int) -> StepNeed:
    """Return the need of a step that takes so many bytes of its device, and whose weights take so many of them."""
    if device().type == "cpu":
        return StepNeed(memory_bytes=total)
    return StepNeed(memory_bytes=weights + _HOST_BYTES, device_bytes=total)


def device_bytes(need: StepNeed) -> int:
    """Return the bytes of the device that the step computes on."""
    return need.memory_bytes if need.device_bytes is None else need.device_bytes


def traced(make: Callable[[], _Found]) -> _Found | None:
    """Return an estimate, or None for an architecture that cannot be traced or lacks a size, which is no fault."""
    try:
        return make()
    except UserFault:
        raise
    except Exception as error:
        _log.warning("no estimate of memory for this model (%s)", type(error).__name__)
        return None
