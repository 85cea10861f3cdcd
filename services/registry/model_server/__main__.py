"""Starts the process: `python -m services.registry.model_server`, by its parent only, who tells it on standard input what to serve.

Standard input closes when the parent is gone; then the process ends at once. Standard error is its log.
"""

import os
import sys

from services.chassis.executor.child import die_with_worker
from services.chassis.process.redaction import redact_output
from services.language_models.precision import physical_cores
from services.registry.model_server.messages import Start

_LANES = 4


def main() -> None:
    """Read the first line and serve. PyTorch reads its number of threads when it is imported."""
    die_with_worker()
    redact_output()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    given = sys.stdin.buffer.readline()
    if not given:
        return
    start = Start.model_validate_json(given)
    cores = physical_cores()
    lanes = start.lanes or min(cores, _LANES)
    os.environ |= {
        "OMP_NUM_THREADS": str(max(1, cores // lanes)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    from services.registry.model_server.process import serve

    serve(start, lanes, replies)


main()
