"""Connects the processes that share one training, and lets them decide together what all of them must do at the same step.

torch.distributed connects them through a file in the run's temporary folder, so that no port is chosen, or listens to others.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch._C._distributed_c10d import FileStore  # torch.distributed has it without a type

from schemas.reasons import Reason
from schemas.recipes.methods import MethodSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import ChildTask, UserFault

_FOREVER = timedelta(days=365)
"""How long one process waits for another: the worker ends all of them when they report no progress."""
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
_SPLIT = ("training", "preference", "kto", "reward")
"""The settings of the methods whose loss is the same however a batch is split over processes."""


def refuse_unsplittable(step: TrainSettings, settings: MethodSettings, processes: int) -> None:
    """Raise UserFault if a training cannot be split over so many processes and stay the same."""
    if processes == 1:
        return
    split = f"this trainer splits a training over {processes} processes"
    remedy = "or let the operator set NEUROWEAVER_TRAINER_LAUNCHER to local"
    section = next(name for name in type(step).model_fields if getattr(step, name) is settings)
    if section not in _SPLIT:
        message = f"{split}, and this method runs in one"
        raise UserFault(Reason(field=section, message=message, remedy=f"take another method, {remedy}"))
    size = settings.optimiser.batch_size
    if size % processes:
        less, more = size // processes * processes, (size // processes + 1) * processes
        raise UserFault(
            Reason(
                field=f"{section}.optimiser.batch_size",
                value=str(size),
                message=f"{split}, and {size} is not a multiple of it",
                remedy=f"set it to {f'{less} or ' if less else ''}{more}, {remedy}",
            )
        )
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserFault(
            Reason(
                field="launcher",
                value=f"{processes} processes",
                message=f"{split}, and each needs a GPU of its own, but it has {gpus}",
                remedy="let the operator set NEUROWEAVER_TRAINER_PROCESSES to the number of GPUs or less",
            )
        )


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is, of how many."""

    rank: int = 0
    processes: int = 1
    backend: str = ""
    """What carries tensors between their devices; empty for one process."""

    @property
    def first(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process. All must call it, at the same place of the same step."""
        if self.processes == 1:
            return flag
        found = torch.tensor(int(flag))
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return bool(found)

    def agree(self, number: int, what: str) -> None:
        """Raise RuntimeError in every process if `number` is not the same in all."""
        if self.processes == 1:
            return
        found = torch.tensor([number, -number])
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        most, least = int(found[0]), -int(found[1])
        if most != least:
            raise RuntimeError(
                f"the processes of this training differ in {what}: it is {least} in one and {most} in another"
            )

    def shared(self, rows: Any) -> Any:
        """Return the data set of the first process, which all then read from one file.

        TRL keeps what it computes of a data set beside its file, and only the first process does so.
        """
        if self.processes == 1:
            return rows
        from datasets import load_from_disk

        folder = Path(tempfile.gettempdir()) / "rows"
        if self.first and not folder.exists():
            rows.save_to_disk(folder)
        distributed.barrier()
        return load_from_disk(folder)


@contextmanager
def joined(task: ChildTask) -> Iterator[Ranks]:
    """Within this block this process and the others of its task are connected; accelerate then trains on all of them."""
    ranks = Ranks(task.rank, task.processes)
    if ranks.processes == 1:
        yield ranks
        return
    number, count = str(ranks.rank), str(ranks.processes)
    os.environ.update(RANK=number, LOCAL_RANK=number, WORLD_SIZE=count, LOCAL_WORLD_SIZE=count)  # as torchrun does
    os.environ.update(GLOO_SOCKET_IFNAME=_LOOPBACK, NCCL_SOCKET_IFNAME=_LOOPBACK)
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # otherwise accelerate changes it
    backends = backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.rank)
        backends, backend = "cpu:gloo,cuda:nccl", "nccl"
    store = FileStore(str(Path(tempfile.gettempdir()) / "ranks"), ranks.processes)
    distributed.init_process_group(backends, store=store, rank=ranks.rank, world_size=ranks.processes, timeout=_FOREVER)
    yield replace(ranks, backend=backend)
    distributed.destroy_process_group()  # after an error it would wait for the others
