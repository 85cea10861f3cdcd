"""Golden logs: records as they travelled, and what the release that wrote them made of them.

`python -m tests.golden.logs` records those of the version in `pyproject.toml`, out of the simulation's histories;
`--live KAFKA` adds what really happened there.
"""

import argparse
import asyncio
import base64
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.envelope import Event, Unreadable, encode, wire_data
from schemas.generate.examples import EXAMPLES
from schemas.ids import new_id
from schemas.steps import Policy
from schemas.topics import EVENT_TYPES, JOBS, MODELS, REQUESTS, TOPIC_OF, aggregate_key
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.kernel.aggregate import Domain
from services.chassis.kernel.records import Record, event_in
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.batch import fold_record
from services.chassis.kernel.transaction.inbox import Sightings, exempt
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.replay.projection import Folding
from services.orchestrator.domain.job import JobDomain
from services.registry.domain.models import RegistryDomain
from tests.log import HeldRecord, read_all
from tests.simulation.world import World

FOLDER = Path(__file__).parent
EXAMPLES_LOG = "examples"
LIVE_LOG = "live"
_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_SEEDS = 200

DOMAINS: Mapping[str, tuple[Domain, tuple[str, ...]]] = {
    "orchestrator": (JobDomain(Policy()), (REQUESTS.name, JOBS.name)),
    "trainer": (ExecutorDomain("trainer"), (JOBS.name,)),
    "feedback": (ExecutorDomain("feedback"), (JOBS.name,)),
    "registry": (RegistryDomain(), (JOBS.name, MODELS.name)),
}
_HOSTILE = (
    b"\xff\xfe no JSON",
    b"[]",
    b'{"job_id": "\\ud800"}',
    b'{"job_id": "x", "deep": ' + b"[" * 80 + b"]" * 80 + b"}",
)


def versions() -> list[str]:
    """Return the released versions that have golden logs."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and (path / "states.json").exists())


def histories(version: str) -> list[str]:
    """Return the names of the logs of a version."""
    return sorted(path.stem for path in (FOLDER / version).glob("*.jsonl"))


def read(version: str, history: str) -> Iterator[HeldRecord]:
    """Return the records of a log, in the order in which they were appended."""
    for line in (FOLDER / version / f"{history}.jsonl").read_text().splitlines():
        kept = json.loads(line)
        headers = [(name, _raw(value)) for name, value in kept.pop("headers")]
        yield HeldRecord(**{**kept, "key": _raw(kept["key"]), "value": _raw(kept["value"]), "headers": headers})


def expected(version: str) -> dict[str, Any]:
    """Return the results that the release stored for its logs: each row by history and service, and the outcomes of the
    examples."""
    found: dict[str, Any] = json.loads((FOLDER / version / "states.json").read_text())
    return found


def states(records: Iterable[Record], service: str) -> dict[str, Any]:
    """Return the result of a replay with the present code: each row with its state and number."""
    domain, topics = DOMAINS[service]
    folding = Folding(domain)
    unit = UnitOfWork(folding, {}, datetime.now(UTC), new_id)
    sightings = Sightings()
    for record in records:
        if record.topic not in topics or not (event := _event(record, domain.handles)):
            continue
        for ref in folding.touches(event):
            unit.rows.setdefault(ref, AggregateRow.absent(folding, ref))
        repeated = not exempt(domain, event) and sightings.repeated(record, event)
        fold_record(unit, record, event, repeated=repeated)
    return {
        f"{ref.aggregate}/{ref.key}": {"sequence": row.sequence, "state": row.state.model_dump(mode="json")}
        for ref, row in sorted(unit.rows.items())
    }


def outcomes(records: Iterable[Record]) -> list[Any]:
    """Return the outcome of reading each record: the data of the event, or why there is none."""
    found: list[Any] = []
    for record in records:
        try:
            event = event_in(record, EVENT_TYPES)
        except Unreadable:
            found.append("unreadable")
        else:
            assert isinstance(event, Event)
            found.append({"type": event.type, "sequence": event.sequence, "data": json.loads(wire_data(event.data))})
    return found


def _event(record: Record, handles: frozenset[str]) -> Event | None:
    try:
        event = event_in(record, handles)
    except Unreadable:
        return None
    return event if isinstance(event, Event) else None


def _raw(text: Any) -> bytes | None:
    return base64.b64decode(text["base64"]) if isinstance(text, dict) else None if text is None else text.encode()


def _text(raw: bytes | None) -> Any:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw or b"").decode()}


def _line(record: Record) -> str:
    headers = [[name, _text(value)] for name, value in record.headers]
    kept = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "timestamp": record.timestamp}
    kept |= {"key": _text(record.key), "headers": headers, "value": _text(record.value)}
    return json.dumps(kept, ensure_ascii=False) + "\n"


def main() -> int:
    """Record logs; existing logs of a version are never recorded again."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.logs", description=__doc__)
    parser.add_argument("--live", metavar="KAFKA", help="bootstrap server of a cluster: add the log that lies there")
    arguments = parser.parse_args()
    version = tomllib.loads(_PROJECT.read_text())["project"]["version"]
    folder = FOLDER / version
    folder.mkdir(exist_ok=True)
    known: dict[str, Any] = expected(version) if (folder / "states.json").exists() else {}
    if (LIVE_LOG if arguments.live else EXAMPLES_LOG) in known:
        sys.stdout.write(f"{version} has these golden logs; what was released does not change\n")
        return 1
    if arguments.live:
        known[LIVE_LOG] = _keep(folder / f"{LIVE_LOG}.jsonl", asyncio.run(_live(arguments.live)))
    else:
        for seed, records in _telling_runs():
            known[f"seed-{seed}"] = _keep(folder / f"seed-{seed}.jsonl", records)
        examples = list(_examples())
        (folder / f"{EXAMPLES_LOG}.jsonl").write_text("".join(map(_line, examples)))
        known[EXAMPLES_LOG] = outcomes(examples)
    (folder / "states.json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(f"recorded: {folder}\n")
    return 0


async def _live(bootstrap: str) -> list[Record]:
    """Return all records of a cluster that projections are folded from, in the order in which they were appended."""
    return _in_order([record for topic in (REQUESTS, JOBS, MODELS) for record in await read_all(bootstrap, topic.name)])


def _in_order(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.timestamp, record.topic, record.partition, record.offset))


def _keep(path: Path, records: list[Record]) -> dict[str, Any]:
    path.write_text("".join(map(_line, records)))
    return {service: states(records, service) for service in DOMAINS}


def _telling_runs() -> Iterator[tuple[int, list[Record]]]:
    """Yield runs, each of which contains something that earlier runs do not."""
    told: set[str] = set()
    for seed in range(_SEEDS):
        world = World(seed, poisonous=False)
        world.run()
        records = _in_order(record for held in world.log.partitions.values() for record in held)
        types = {dict(record.headers)["ce_type"].decode() for record in records}  # type: ignore[union-attr]
        if types - told:
            told |= types
            yield seed, records


def _examples() -> Iterator[Record]:
    """Return one record of every type, and some that cannot be read."""
    for number, event in enumerate(EXAMPLES.values()):
        value, headers = encode(event)
        at = round(event.time.timestamp() * 1000)
        yield HeldRecord(TOPIC_OF[event.type].name, 0, number, at, aggregate_key(event.data).encode(), value, [*headers])
    for number, value in enumerate(_HOSTILE):
        headers = encode(EXAMPLES["JobRejected"])[1]
        yield HeldRecord(JOBS.name, 1, number, 0, b"hostile", value, [*headers])


if __name__ == "__main__":
    sys.exit(main())
