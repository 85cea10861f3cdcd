"""How fast a projection is made again from the log, against reading the same records and copying the same rows by hand."""

import asyncio
import json
import time
from datetime import datetime
from statistics import median
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url

from benchmarks.arms import chassis
from benchmarks.full_loop import Servers, process
from benchmarks.load import create_topics, fill
from schemas.topics import JOBS
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.replay.rebuild import verify

_OWN = "own"
_COLUMNS = ("key", "sequence", "state", "created_at", "updated_at", "offsets", "own_event_id")


async def filled(servers: Servers, count: int) -> tuple[str, str]:
    """Yield name and topic of a service that has applied `count` requests and read its own answers. The topic of jobs must
    have nothing else, because the projection is a fold of all of it.
    """
    name = f"bench_{uuid4().hex[:8]}"
    topic = f"bench.{name}.requests"
    await create_topics(servers.bootstrap, topic)
    await chassis.prepare(servers.bootstrap, servers.database_url, name, topic)
    await fill(servers.bootstrap, topic, count)
    connection = await asyncpg.connect(_url(servers, name))
    async with process("chassis", servers.bootstrap, servers.database_url, name, topic, _OWN):
        while await connection.fetchval("SELECT coalesce(sum(next_offset), 0) FROM operational.position") < 2 * count:
            await asyncio.sleep(0.5)
    await connection.close()
    return name, topic


async def replay(servers: Servers, name: str, topic: str) -> float:
    """Return the seconds of a verify: fold into a shadow, then compare."""
    made = chassis.runtime(servers.bootstrap, servers.database_url, name, topic, _OWN)
    begun = time.perf_counter()
    found = await verify(made.projection)
    took = time.perf_counter() - begun
    await made.engine.dispose()
    if found.differences:
        raise RuntimeError(f"the replay found {found.differences} differences")
    return took


async def by_hand(servers: Servers, name: str, topic: str) -> float:
    """Return the seconds to read the same records, parse them, and COPY the same rows into a table with the same key."""
    connection = await asyncpg.connect(_url(servers, name))
    await connection.execute("DROP TABLE IF EXISTS copied")
    await connection.execute("CREATE TABLE copied (LIKE projection.tally INCLUDING ALL)")
    begun = time.perf_counter()
    rows: dict[str, dict[str, Any]] = {}
    async with log.read(
        Cluster(servers.bootstrap), await log.bounds(Cluster(servers.bootstrap), [topic, JOBS.name])
    ) as chunks:
        async for chunk in chunks:
            for record in chunk:
                headers = {header: value.decode() for header, value in record.headers}
                body = json.loads(record.value)
                row = rows.setdefault(body["job_id"], {"state": {}, "offsets": {}})
                row["offsets"][f"{record.topic}:{record.partition}"] = record.offset
                if headers["ce_type"] == "neuroweaver.JobRequested":
                    row["at"] = datetime.fromisoformat(headers["ce_time"])
                    row["state"] |= {
                        "correlation_id": body["job_id"],
                        "opened_by": headers["ce_id"],
                        "traceparent": headers["ce_traceparent"],
                        "requests": 1,
                        "requester": body["requester"],
                    }
                else:
                    row["own"], row["latest"] = headers["ce_id"], datetime.fromisoformat(headers["ce_time"])
                    row["state"]["refused"] = 1
    records = [
        (key, 1, json.dumps(row["state"]), row["at"], row["latest"], json.dumps(row["offsets"]), row["own"])
        for key, row in rows.items()
    ]
    await connection.copy_records_to_table("copied", records=records, columns=_COLUMNS)
    took = time.perf_counter() - begun
    await connection.close()
    return took


def _url(servers: Servers, name: str) -> str:
    url = make_url(servers.database_url).set(drivername="postgresql", database=f"neuroweaver_{name}")
    return url.render_as_string(hide_password=False)


async def measure(servers: Servers, *, rounds: int, events: int) -> dict[str, list[float]]:
    """Return the seconds of both methods, round by round."""
    name, topic = await filled(servers, events)
    found: dict[str, list[float]] = {"replay": [], "by hand": []}
    for _ in range(rounds):
        found["replay"].append(await replay(servers, name, topic))
        found["by hand"].append(await by_hand(servers, name, topic))
    return found


def summary(found: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of the ratios of speeds."""
    ratios = [copy / ours for ours, copy in zip(found["replay"], found["by hand"], strict=True)]
    return {"ratio_copy": median(ratios)}
