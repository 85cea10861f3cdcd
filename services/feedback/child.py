"""Runs the feedback steps in a child process; only a local judge imports torch, the service never does."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
"""OpenMP's threads sleep while they wait: spinning costs minutes when another process needs a core."""
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from services.chassis.executor.child import run_child  # noqa: E402  # torch must not be imported before the lines above
from services.chassis.reports.reported import reported  # noqa: E402
from services.feedback.steps.compare import compare  # noqa: E402
from services.feedback.steps.label import label  # noqa: E402
from services.feedback.steps.score import score  # noqa: E402

if __name__ == "__main__":
    run_child({"label": reported(label), "score": reported(score), "compare": reported(compare)})
