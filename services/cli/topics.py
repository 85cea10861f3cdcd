"""`neuroweaver topics plan` and `apply`: compares a cluster with the catalogue of topics.

The cluster is the one that settings name, else that of the running development stack, else one that is started for the command.
"""

import asyncio

from services.chassis.kafka import topics
from services.chassis.kafka.catalogue import TopicChange
from services.cli.settings import CliSettings
from services.cli.stack import broker


def compare(settings: CliSettings, *, apply: bool) -> list[TopicChange]:
    """Return the differences from the catalogue, after correcting them if `apply`."""
    act = topics.apply if apply else topics.plan
    with broker(settings) as cluster:
        return asyncio.run(act(cluster))
