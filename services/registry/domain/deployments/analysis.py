"""Judges a step of a canary by what its callers got: errors, empty answers and latency, against limits and the version before; and by
what a judge said of its answers.

A share fails only if its 95 % Wilson interval (Wilson 1927) lies above the limit, and passes only if the share itself does not exceed it on
enough requests; in between, more requests have to tell. The limit of a share is that of the wish, or the share of the version before if that is
larger: a canary need not be better than what is broken. Of answers that were judged the share of the wins is looked at in the same way,
from below.
"""

from collections.abc import Iterable
from itertools import accumulate
from math import sqrt
from typing import NamedTuple

from schemas.deployments import Analysis, Check, PairsJudged, Rollout, Shadow
from schemas.gates import FAILED, INCONCLUSIVE, PASSED
from services.registry.domain.gates import joint

_Z = 1.959964
_FIRST, _FACTOR, _BUCKETS = 0.01, 1.25, 50
BOUNDS = tuple(_FIRST * _FACTOR**number for number in range(_BUCKETS))
"""Upper bounds of the buckets of latencies in seconds, to about 560 s; the last bucket has all above."""
_P95 = 0.95
JUDGE_SCORE = "judge_score"
_SLACK_SECONDS = 0.05
"""Differences of latency below this are none."""


class Traffic(NamedTuple):
    """What became of some requests."""

    requests: int = 0
    errors: int = 0
    empty: int = 0
    latencies: tuple[int, ...] = (0,) * (_BUCKETS + 1)
    """Number of answers by bucket."""

    def plus(self, other: "Traffic") -> "Traffic":
        """Return both together."""
        both = tuple(map(sum, zip(self.latencies, other.latencies, strict=True)))
        return Traffic(self.requests + other.requests, self.errors + other.errors, self.empty + other.empty, both)

    @property
    def p95(self) -> float | None:
        """The 95th percentile of the latency, to the bound of its bucket; None if nothing was answered."""
        answered = sum(self.latencies)
        if not answered:
            return None
        bucket = next(number for number, count in enumerate(accumulate(self.latencies)) if count >= _P95 * answered)
        return BOUNDS[min(bucket, _BUCKETS - 1)]


class Measured(NamedTuple):
    """What is measured of a rollout."""

    target: Traffic = Traffic()
    """Of the version that is rolled out, in this step."""
    active: Traffic = Traffic()
    """Of the version before, since the rollout began."""
    judged: PairsJudged | None = None
    """What a judge said of answers of both to the same requests, since the rollout began; None: nothing yet."""


def analysed(rollout: Rollout, percent: float, seconds: float, measured: Measured) -> Analysis:
    """Judge a step that has taken `seconds`."""
    checks = tuple(_checks(rollout, measured))
    verdict = joint(check.verdict for check in checks)
    if verdict == PASSED and seconds < rollout.step_seconds:
        verdict = INCONCLUSIVE
    return Analysis(percent=percent, seconds=round(seconds, 3), verdict=verdict, checks=checks)


def described(analysis: Analysis) -> str:
    """Return in words what did not pass."""
    said = [_described(one) for one in analysis.checks if one.verdict != PASSED]
    return "; ".join(said) or "all checks passed"


def _described(check: Check) -> str:
    if check.name == JUDGE_SCORE:
        return f"{check.name} is {_text(check.value)} of {check.requests} decided pairs, and must be {_text(check.limit)}"
    return f"{check.name} is {_text(check.value)} of {check.requests} requests, and may be {_text(check.limit)}"


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _checks(rollout: Rollout, measured: Measured) -> Iterable[Check]:
    target, active, least = measured.target, measured.active, rollout.least_requests
    answered, answered_before = target.requests - target.errors, active.requests - active.errors
    limit = max(rollout.error_rate, _share(active.errors, active.requests, least))
    yield _rate("error_rate", target.errors, target.requests, limit, least)
    limit = max(rollout.empty_rate, _share(active.empty, answered_before, least))
    if answered >= least or not target.errors:
        yield _rate("empty_rate", target.empty, answered, limit, least)
    before, now = active.p95, target.p95
    if before is not None and answered_before >= least:
        allowed = before * rollout.slower_by + _SLACK_SECONDS
        verdict = INCONCLUSIVE if now is None or answered < least else PASSED if now <= allowed else FAILED
        yield Check(name="p95_seconds", verdict=verdict, value=now, limit=allowed, requests=answered)
    if rollout.shadow is not None:
        yield judge_score(rollout.shadow, measured.judged)


def judge_score(shadow: Shadow, judged: PairsJudged | None) -> Check:
    """Judge the share of the wins; a judge that said nothing yet leaves it open."""
    decided = judged.wins + judged.losses if judged else 0
    share = judged.wins / decided if judged and decided else None
    verdict = INCONCLUSIVE
    if judged and judged.high is not None and judged.high < shadow.win_rate:
        verdict = FAILED
    elif share is not None and decided >= shadow.least_pairs and share >= shadow.win_rate:
        verdict = PASSED
    return Check(name=JUDGE_SCORE, verdict=verdict, value=share, limit=shadow.win_rate, requests=decided, judged=judged)


def _rate(name: str, count: int, requests: int, limit: float, least: int) -> Check:
    share = count / requests if requests else None
    verdict = INCONCLUSIVE
    if share is not None and share > limit and interval(count, requests)[0] > limit:
        verdict = FAILED
    elif share is not None and requests >= least and share <= limit:
        verdict = PASSED
    return Check(name=name, verdict=verdict, value=share, limit=limit, requests=requests)


def _share(count: int, requests: int, least: int) -> float:
    return count / requests if requests >= least and requests else 0.0


def interval(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share."""
    share, square = count / of, _Z * _Z
    middle = share + square / (2 * of)
    spread = _Z * sqrt(share * (1 - share) / of + square / (4 * of * of))
    return (middle - spread) / (1 + square / of), (middle + spread) / (1 + square / of)
