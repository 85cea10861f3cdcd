"""Runs one judge for other services: makes it ready, then scores the texts of each line; ends with the service.

Only a local judge and a reward model import torch.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
"""OpenMP's threads sleep while they wait: spinning costs minutes when another process needs a core."""
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import logging  # noqa: E402  # torch must not be imported before the lines above
import sys  # noqa: E402
import traceback  # noqa: E402
from typing import BinaryIO  # noqa: E402

from schemas.base import Frozen  # noqa: E402
from services.chassis.executor.child import UserFault, die_with_worker  # noqa: E402
from services.chassis.executor.text import storable, storable_reasons  # noqa: E402
from services.chassis.process.redaction import redact_output  # noqa: E402
from services.chassis.storage.artifacts.store import ArtifactStore  # noqa: E402
from services.feedback.judges.choose import choose_judge  # noqa: E402
from services.feedback.judges.judge import Judge, TextToJudge  # noqa: E402
from services.feedback.judges.registered import fetched_judge  # noqa: E402
from services.feedback.judging.messages import JudgeTask, Ready, Scores, Texts  # noqa: E402

_SHOWN = 1000


def main() -> None:
    """Serve the judge that the first line names until the input ends."""
    redact_output()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # libraries print to standard output
        die_with_worker()
        task = JudgeTask.model_validate_json(sys.stdin.buffer.readline())
        try:
            version = fetched_judge(task.version, ArtifactStore(task.artifacts_uri), task.cache)
            chosen = choose_judge(task.feedback, task.base_model, task, version)
        except UserFault as fault:
            _reply(replies, Ready(reasons=storable_reasons(fault.reasons)))
            return
        _reply(replies, Ready(judge=chosen.judge.name, facts=dict(chosen.facts)))
        for line in sys.stdin.buffer:
            _reply(replies, scores_of(chosen.judge, Texts.model_validate_json(line)))


def scores_of(judge: Judge, asked: Texts) -> Scores:
    """Return the scores of the texts, or why there are none."""
    try:
        texts = [TextToJudge(text.messages, text.columns, text.text) for text in asked.texts]
        return Scores(scores=tuple(judge.score(texts, lambda *_: None)))
    except UserFault as fault:
        return Scores(reasons=storable_reasons(fault.reasons))
    except Exception as error:
        traceback.print_exc()
        return Scores(failed=storable(f"{type(error).__name__}: {error}")[:_SHOWN])


def _reply(replies: BinaryIO, reply: Frozen) -> None:
    replies.write(reply.model_dump_json().encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()
