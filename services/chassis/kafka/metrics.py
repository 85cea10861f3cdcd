"""Metrics of what the chassis finds at the broker: the members of the consumer group, and how topics differ from the catalogue."""

from prometheus_client import Gauge

from services.chassis.process.metrics import REGISTRY

GROUP_MEMBERS = Gauge(
    "neuroweaver_group_members", "Members of the service's consumer group.", ["service", "whose"], registry=REGISTRY
)
"""`whose`: `this deployment`, `another deployment`, `another program`. Above 0 for the last two, the condition `alone` says who it is.
The first is the number of replicas that the broker knows; look at it when one of them gets no partitions."""

TOPIC_DIFFERENCES = Gauge(
    "neuroweaver_topic_differences", "1 for what differs from the catalogue; `topics plan` says what.", ["service", "topic", "action"],
    registry=REGISTRY,
)  # fmt: skip
"""`topic`: a topic of the catalogue; `action`: `create`, `configure`, `conflict`, `note`, see `catalogue.Action`. A series goes when the
difference does. `neuroweaver topics apply` mends the first two; a person decides about a conflict."""
