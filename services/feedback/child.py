"""The process in which the feedback steps are done; torch comes in only with a local judge, never in the service."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
"""OpenMP's threads sleep while they wait: spinning costs minutes as soon as anything else wants a core."""
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from services.chassis.executor.child import run_child  # noqa: E402  # torch must not be imported before the lines above
from services.feedback.steps.label import label  # noqa: E402
from services.feedback.steps.score import score  # noqa: E402

if __name__ == "__main__":
    run_child({"label": label, "score": score})
