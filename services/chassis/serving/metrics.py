"""Metrics of the HTTP server. They have no label `service`: the services of one process share its server."""

from prometheus_client import Counter, Gauge, Histogram

from services.chassis.process.metrics import REGISTRY

HTTP_SECONDS = Histogram(
    "neuroweaver_http_seconds", "Seconds per request.", ["method", "route", "status"], registry=REGISTRY
)
"""`method`: those of `web.measure`, or `other`; `route`: templates as in the OpenAPI document, or `unmatched`; `status`: the code. A
stream counts when it ends. Its quantiles are the latency of the API, its count by status the errors."""

HTTP_STREAMS = Gauge("neuroweaver_http_streams", "Streams of events that are read.", registry=REGISTRY)
"""At `NEUROWEAVER_HTTP_STREAMS`, further ones are answered with 503."""

HTTP_GIVEN_UP = Counter(
    "neuroweaver_http_given_up", "Connections that were closed before their caller was done.", ["why"], registry=REGISTRY
)
"""`why`: `slow header`, `slow body`, `unread answer`, `made room`, `no room`, see `web.connections.Cause`.

The first three are callers that are slow or have disconnected; the last two mean that the places of the server are taken:
check who connects, then `NEUROWEAVER_HTTP_CONNECTIONS`.
"""
