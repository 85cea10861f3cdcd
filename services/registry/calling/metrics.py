"""Metrics of what deployments answer, one set of time series for each name in the label `deployment`; those of a retired deployment are
removed."""

from collections.abc import Collection

from prometheus_client import Counter, Histogram

from services.chassis.process.metrics import REGISTRY

OUTCOMES = ("answered", "empty", "refused", "failed", "broken off", "left")
"""What became of a request. answered: with text or a tool call. empty: with neither. refused: its server said that the request is
wrong. failed: no server answered it, or one with an error. broken off: its answer ended in the middle. left: its caller went away."""

REQUESTS = Counter(
    "neuroweaver_deployment_requests", "Requests to a deployment.", ["deployment", "outcome"], registry=REGISTRY
)
"""`outcome`: one of OUTCOMES. `failed`, `broken off` and a rise of `empty` mean that its callers get no answers."""

SECONDS = Histogram(
    "neuroweaver_deployment_seconds", "Seconds until the last byte of an answer.", ["deployment"], registry=REGISTRY,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
)  # fmt: skip
"""Of answered and empty requests. Its quantiles are the latency that callers see."""

TOKENS = Counter("neuroweaver_deployment_tokens", "Tokens of answered requests.", ["deployment", "kind"], registry=REGISTRY)
"""`kind`: `prompt` or `completion`, as the server counts them."""

RETRIES = Counter(
    "neuroweaver_deployment_retries",
    "Requests that were sent again, to the same or another slot.",
    ["deployment"],
    registry=REGISTRY,
)
"""A few after a switch are as intended; many mean that a server dies often."""


SHADOW_OUTCOMES = ("paired", "left out", "dropped", "failed", "empty")
"""What became of a request that was to be shadowed. paired: both answers are there. left out: it has tools, images, several answers or
too many bytes. dropped: too many waited for the canary. failed: the canary did not answer. empty: it answered without text."""

SHADOWS = Counter(
    "neuroweaver_deployment_shadows",
    "Requests of callers that a canary was to answer, too.",
    ["deployment", "outcome"],
    registry=REGISTRY,
)
"""`outcome`: one of SHADOW_OUTCOMES. Many `dropped` mean that the canary is slow or hung; callers notice nothing of it."""


def forget(deployments: Collection[str]) -> None:
    """Remove the time series of deployments that are retired."""
    for name in deployments:
        for outcome in OUTCOMES:
            _remove(REQUESTS, name, outcome)
        for outcome in SHADOW_OUTCOMES:
            _remove(SHADOWS, name, outcome)
        for kind in ("prompt", "completion"):
            _remove(TOKENS, name, kind)
        _remove(SECONDS, name)
        _remove(RETRIES, name)


def _remove(metric: Counter | Histogram, *labels: str) -> None:
    if labels in metric._metrics:
        metric.remove(*labels)
