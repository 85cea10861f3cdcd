"""Publishes one JobRequested as a product outside NeuroWeaver does: `python -m examples.tally.ask tally-1`."""

import asyncio
import sys

from examples.tally.app import PREFIX, TallySettings
from schemas.envelope import Event, encode
from schemas.requests import JobRequested
from schemas.topics import TOPIC_OF, aggregate_key
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer, outside_event


async def publish(cluster: Cluster, *events: Event) -> None:
    """Publish in order and wait until all are acknowledged. Raises KafkaError if one is not."""
    producer = make_producer(cluster, "outside")
    await producer.start()
    try:
        sent = []
        for event in events:
            value, headers = encode(event)
            key = aggregate_key(event.data).encode()
            sent.append(await producer.send(TOPIC_OF[event.type].name, value, key, headers=headers))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def main(job_id: str) -> None:
    """Ask for a job that names no model, so that nothing is trained."""
    event = outside_event("outside", JobRequested(job_id=job_id, request={"job_id": job_id}), correlation_id=job_id)
    asyncio.run(publish(TallySettings().cluster, event))
    sys.stdout.write(f"JobRequested {event.id} for {job_id} is on {TOPIC_OF[event.type].name}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m examples.tally.ask JOB_ID, such as {PREFIX}1")
    main(sys.argv[1])
