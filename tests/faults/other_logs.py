"""What is done to the log itself while the load goes on: its topic is made again, or loses records that nobody has read."""

import random

from schemas.discards import RecordsSkipped
from schemas.topics import DISCARDS, REQUESTS
from services.chassis.kernel.operations.partitions.listing import listed
from services.chassis.kernel.operations.partitions.stepping import step_over
from services.chassis.kernel.records import Partition
from tests.faults.field import Field, Member
from tests.faults.history import Verdict
from tests.faults.scale import PER_SECOND, Scale
from tests.log import read_events
from tests.recreating import recreate
from tests.toy import until


async def made_again(field: Field, scale: Scale) -> Verdict:
    """Delete and create the topic of requests again while a member runs; records of the new topic wait until it is
    accepted."""
    await field.join()
    for _ in range(scale.repetitions):
        async with field.load(scale.events // scale.repetitions // 2, PER_SECOND):
            pass
        await field.settled()
        await recreate(field.stack.cluster, REQUESTS)
        async with field.load(scale.events // scale.repetitions // 2, PER_SECOND):
            await until(lambda: _is_accepted(field))
    return await field.verdict(replayed=False)  # the events of the first log are lost with it


async def _is_accepted(field: Field) -> bool:
    """Accept the new log with all of its partitions, as an operator does."""
    reading = field.toy.runtime().reading
    stands = [view for view in await listed(field.toy.engine, reading) if view.cause == "another log"]
    for view in stands[:1]:
        await step_over(field.toy.engine, reading, (view.topic, view.partition), "made again by the scenario", "ada")
    return bool(stands)


async def removed_unread(field: Field, scale: Scale) -> Verdict:
    """Remove unread records of one partition for each repetition, and more while it is stopped. Each range is reported in
    health, log and metric; partitions that lost nothing continue; each other one continues after the operator's decision,
    which is an event.
    """
    chance = random.Random(f"{scale.seed} removed unread")
    async with field.load(scale.events // 2, PER_SECOND):
        pass
    places = [(REQUESTS.name, number) for number in range(min(scale.repetitions, REQUESTS.partitions))]
    gone = {place: await field.lose(place, chance.uniform(0.2, 0.6)) for place in places}
    member = await field.join(ready=False)
    async with field.load(scale.events - scale.events // 2, PER_SECOND):
        await _all_said(member, gone)
        for place in places:
            gone[place] = await field.lose(place, chance.uniform(0.1, 0.3))
            await _all_said(member, gone)
            await _acknowledged(field, place, gone.pop(place))
            await _all_said(member, gone)
    await until(lambda: member.ready, what=lambda: member.said[-1])
    verdict = await field.verdict()
    skipped = await _skipped(field)
    if [(fact.topic, fact.partition) for fact in skipped] != places:
        raise AssertionError(f"each loss is a fact, once; found {skipped}")
    return verdict


async def _all_said(member: Member, gone: dict[Partition, int]) -> None:
    """Wait until the member reports for exactly these partitions that all records below an offset were removed.

    Raises AssertionError.
    """

    def said() -> bool:
        now = member.said[-1][1] if member.said else None
        return (
            now is not None
            and now.removed == sum(gone.values())
            and all(
                f"{topic}:{number}: offsets 0 to {end - 1} were removed" in now.missing.get("unread", "")
                for (topic, number), end in gone.items()
            )
        )

    await until(said, 240, what=lambda: (gone, member.said[-1:]))
    log = member.log.read_text()
    for (topic, number), end in gone.items():
        if f"{topic}:{number}: offsets 0 to {end - 1} were removed" not in log:
            raise AssertionError(f"the log does not say what {topic}:{number} lost")


async def _acknowledged(field: Field, place: Partition, end: int) -> None:
    done = await step_over(field.toy.engine, field.toy.runtime().reading, place, "removed by the scenario", "ada")
    if f"offsets 0 to {end - 1} are lost" not in done.said:
        raise AssertionError(f"what is acknowledged is what was said, up to {end}: {done.said}")


async def _skipped(field: Field) -> list[RecordsSkipped]:
    events = await read_events(field.stack.kafka_bootstrap, DISCARDS.name)
    return [e.data for e in events if e.source == field.toy.domain.source and isinstance(e.data, RecordsSkipped)]
