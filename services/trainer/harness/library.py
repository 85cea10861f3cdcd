"""Loads lm-evaluation-harness, so that the templates of a task file run no code and it neither prints nor sends anything."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.reasons import Reason, shown
from services.chassis.executor.child import UserFault

FIELD = "evaluation.harness"
_PACKAGE = "lm_eval"


def task_fault(reference: str, message: str, remedy: str) -> UserFault:
    """Make a fault of one of the tasks that the request names."""
    return UserFault(Reason(field=f"{FIELD}.tasks", value=shown(reference), message=message, remedy=remedy))


def _require_harness() -> None:
    if find_spec(_PACKAGE) is None:
        raise UserFault(
            Reason(
                field=FIELD,
                message="lm-evaluation-harness is not installed where the trainer runs",
                remedy="leave evaluation.harness out, or have the operator run: pip install 'neuroweaver[lm-eval]'",
            )
        )


def tasks_folder() -> Path:
    """Return the folder of the task files that the harness comes with."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise AssertionError("load_harness is called first")
    return Path(spec.origin).parent.resolve() / "tasks"


def harness_version() -> str:
    """Return the version of the harness."""
    from importlib.metadata import version

    return version(_PACKAGE)


def load_harness() -> None:
    """Import the harness. Its templates are Jinja's, which can reach everything in Python, so they get a sandbox.

    Raises UserFault if the harness is not installed.
    """
    _require_harness()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import lm_eval.api.metrics
    import lm_eval.api.task
    import lm_eval.utils
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.filters.update(lm_eval.utils.env.filters)
    lm_eval.utils.env = sandbox
    lm_eval.api.task.tqdm = _no_bar


def _no_bar(rows: Any, **_: Any) -> Any:
    return rows
