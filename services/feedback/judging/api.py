"""Lets other services ask a judge over HTTP."""

from fastapi import APIRouter

from schemas.judgements import JUDGEMENTS, REQUEST_BYTES, JudgementRequest, Judgements
from services.chassis.serving.problem import Problem, problems
from services.feedback.judging.judges import Judges, JudgesBusy, JudgeSlow
from services.feedback.judging.process import JudgeFailed, JudgeRefused

_RETRY = {"Retry-After": "2"}


def judgement_router(judges: Judges) -> APIRouter:
    """The route by which a training asks for rewards."""
    api = APIRouter(tags=["feedback"])

    @api.post(
        JUDGEMENTS,
        summary="Score texts with a judge",
        responses=problems(413, 415, 422, 502, 503, 504),
        max_body_size=REQUEST_BYTES,
    )
    async def judged(asked: JudgementRequest) -> Judgements:
        """Returns a score for each text, as a step of kind score does, and null where the judge gives none.

        The judge stays ready for further requests with the same settings. 422 says why it cannot be used; after 502 (it failed),
        503 (it works for others) and 504 (it was ended because it was too slow) the request may be sent again.
        """
        try:
            return await judges.judge(asked)
        except JudgeRefused as refused:
            raise Problem.of(422, "The judge cannot be used", refused.reasons) from refused
        except JudgeFailed as failed:
            raise Problem(502, "The judge failed", str(failed), headers=_RETRY) from failed
        except JudgesBusy as busy:
            raise Problem(503, "The judge is busy", str(busy), headers=_RETRY) from busy
        except JudgeSlow as slow:
            raise Problem(504, "The judge is too slow", str(slow)) from slow

    return api
