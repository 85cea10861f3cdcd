"""Runs the trainer's steps in a child process; heavy imports happen here, per kind, never in the service."""

import os
from collections.abc import Mapping
from typing import NoReturn

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
"""OpenMP's threads sleep while they wait. By default they spin, which costs minutes when another process needs a core."""
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("DISABLE_MLFLOW_INTEGRATION", "TRUE")
"""Else TRL imports MLflow wherever it is installed, which costs each training a second of processor time; a recorder has its own process."""
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
"""Else NumPy, SciPy and Arrow start threads when they are imported, and a process with threads cannot be forked. Torch has its own threads."""

from schemas.jobs import StepResult  # noqa: E402  # torch must not be imported before the lines above
from services.chassis.executor.child import Context, Handler, run_child  # noqa: E402
from services.chassis.executor.forking import fork_children  # noqa: E402
from services.chassis.executor.ranks import ranks  # noqa: E402
from services.chassis.reports.reported import reported  # noqa: E402
from services.trainer.malloc import keep_freed_memory  # noqa: E402
from services.trainer.modelling.four_bits import without_bitsandbytes  # noqa: E402


def prepare(context: Context) -> StepResult:
    """Run a step of kind `prepare`."""
    from services.trainer.steps.prepare import prepare

    return prepare(context)


def train(context: Context) -> StepResult:
    """Run a step of kind `train`, with other processes where its task names several."""
    from services.trainer.steps.event_files import event_files
    from services.trainer.steps.train import train

    with event_files(context), ranks(context, "services.trainer.rank"):
        return train(context)


def sample(context: Context) -> StepResult:
    """Run a step of kind `sample`."""
    from services.trainer.steps.sample import sample

    return sample(context)


def evaluate(context: Context) -> StepResult:
    """Run a step of kind `evaluate`."""
    from services.trainer.steps.evaluate import evaluate

    return evaluate(context)


def compress(context: Context) -> StepResult:
    """Run a step of kind `compress`."""
    from services.trainer.steps.compress import compress

    return compress(context)


def import_model(context: Context) -> StepResult:
    """Run a step of kind `import`."""
    from services.trainer.steps.import_model import import_model

    return import_model(context)


def run(handlers: Mapping[str, Handler]) -> NoReturn:
    """Run the task of this process, or, in a warm one, those of its forks."""
    keep_freed_memory()
    without_bitsandbytes()
    fork_children("services.trainer.imported")
    run_child(handlers)


if __name__ == "__main__":
    run(
        {
            "prepare": reported(prepare),
            "train": reported(train),
            "sample": reported(sample),
            "evaluate": reported(evaluate),
            "compress": reported(compress),
            "import": reported(import_model),
        }
    )
