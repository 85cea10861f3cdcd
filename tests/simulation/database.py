"""PostgreSQL in memory, as far as the chassis uses it: the chassis' own statements run here, so its own code is what runs.

What is mirrored is what the promises rest on: a transaction is seen by others as a whole or not at all; `FOR UPDATE` and an
insert into a unique key wait for whoever holds the row and then see what was committed; `SKIP LOCKED` passes over; a table
lock waits for everyone who has written to the table; identity values are given at insert, not at commit. Each statement
is a point where others may go on and where a process may die. A statement that is not known here fails the run.

Statements: of `kernel` all but `PRUNE_INBOX`, of `kernel.transaction` all, of `kernel.relay` all, of `executor` all about leases,
of `replay` the fence, `replay.shadow.swap` (as `Connection.swap`), the orchestrator's `KEEP_LATEST`; those of dead letters are in `letters`.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from services.chassis.executor import statements as executor
from services.chassis.executor.attempts import OPEN
from services.chassis.kernel import statements as kernel
from services.chassis.kernel.consuming.identity import statements as identity
from services.chassis.kernel.relay import statements as relay
from services.chassis.kernel.tables import HEADER_COLUMNS
from services.chassis.kernel.transaction import statements as transaction
from services.chassis.replay import statements as replay
from tests.simulation import letters
from tests.simulation.clock import Clock
from tests.simulation.rules import SOUND, Rules
from tests.simulation.turns import turn

Key = tuple[Any, ...]
Values = dict[str, Any]
_ABSENT = {
    "sequence": 0, "state": "{}", "due_at": None, "created_at": None, "updated_at": None, "offsets": "{}", "own_event_id": None,
    "own_ids": "",
}  # fmt: skip
_TABLE_LOCK = "table"


class ConnectionLost(ConnectionError):
    """The server ended the session."""


class Database:
    """One service's committed rows, by table and key, and the locks on them."""

    def __init__(self, clock: Clock, rules: Rules = SOUND) -> None:
        self.clock, self.rules = clock, rules
        self.tables: dict[str, dict[Key, Values]] = {}
        self.holders: dict[Key, Connection] = {}
        self.writers: dict[str, set[Connection]] = {}
        self.ledger: list[str] = []
        """The applied events, in the order of commits."""
        self.serial = 0
        self.begun = 0
        """Number of the latest transaction."""
        self.open: list[Connection] = []
        """Open transactions."""

    def rows(self, table: str) -> dict[Key, Values]:
        """The committed rows of `table`."""
        return self.tables.setdefault(table, {})

    def connection(self) -> "Connection":
        """Return a session that commits after each statement."""
        return Connection(self, autocommit=True)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["Connection"]:
        """Open a transaction, like `AsyncEngine.begin`."""
        self.begun += 1
        connection = Connection(self, number=self.begun)
        self.open.append(connection)
        try:
            yield connection
            await turn()
            if connection.lost:
                raise ConnectionLost("the session is gone")
            connection.commit()
            if connection.answer_lost:
                raise TimeoutError
        finally:
            connection.roll_back()
            self.open.remove(connection)
        await turn()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["Connection"]:
        """Open a connection for reading, like `AsyncEngine.connect`."""
        yield self.connection()


class OutboxRow(tuple[Any, ...]):
    """A row of the outbox as the relay reads it: columns by index and by name."""

    NAMES = ("position", "aggregatetype", "aggregateid", "payload", *HEADER_COLUMNS)
    position = property(lambda self: self[0])
    aggregatetype = property(lambda self: self[1])
    aggregateid = property(lambda self: self[2])
    payload = property(lambda self: self[3])


class Unsent(tuple[Any, ...]):
    """A row of the outbox as a replay reads it."""

    NAMES = ("payload", *HEADER_COLUMNS)
    payload = property(lambda self: self[0])


class Result:
    """The result of a statement."""

    def __init__(self, rows: Sequence[Any] = ()) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        return self._rows

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        return self._rows[0]

    def mappings(self) -> "Result":
        return self

    def one_or_none(self) -> Any:
        return self.first()

    def scalar_one_or_none(self) -> Any:
        return self._rows[0][0] if self._rows else None


class Connection:
    """A session with at most one open transaction."""

    def __init__(self, database: Database, *, autocommit: bool = False, number: int = 0) -> None:
        self.database, self.autocommit, self.number = database, autocommit, number
        self.lost = False
        self.hangs = False
        """Whether the next statement gets no answer; the text of its time-out is empty."""
        self.answer_lost = False
        """Whether a commit succeeds without an answer; the text of its time-out is empty."""
        self._written: dict[tuple[str, Key], Values | None] = {}
        self._held: list[Key] = []
        self._ledger: list[str] = []

    # -- transaction ------------------------------------------------------------------------------------------------------
    def commit(self) -> None:
        """Commit: from now on others see everything."""
        for (table, key), values in self._written.items():
            if values is None:
                self.database.rows(table).pop(key, None)
            else:
                self.database.rows(table)[key] = values
        self.database.ledger += self._ledger
        self.roll_back()

    def roll_back(self) -> None:
        """Drop uncommitted changes and release every lock."""
        self._written, self._ledger = {}, []
        for key in self._held:
            self.database.holders.pop(key, None)
        self._held = []
        for writers in self.database.writers.values():
            writers.discard(self)

    def note(self, ids: Iterable[str]) -> None:
        """Add applied events to the ledger when this transaction commits."""
        self._ledger += ids

    async def _hold(self, key: Key) -> None:
        """Wait for a lock and take it."""
        holders = self.database.holders
        if holders.get(key) is self:
            return
        while key in holders:
            await turn(lambda: key not in holders)
        holders[key] = self
        self._held.append(key)

    async def _writes(self, table: str) -> None:
        """Wait until no other transaction has locked `table`, before its rows are written."""
        if self in self.database.writers.setdefault(table, set()):
            return
        lock = (_TABLE_LOCK, table)
        holders = self.database.holders
        while holders.get(lock, self) is not self:
            await turn(lambda: holders.get(lock, self) is self)
        self.database.writers[table].add(self)

    async def lock_table(self, table: str) -> None:
        """Wait until no other open transaction has written to `table`, then lock it."""
        await self._hold((_TABLE_LOCK, table))
        writers = self.database.writers.setdefault(table, set())
        await turn(lambda: not (writers - {self}))

    def _row(self, table: str, key: Key) -> Values | None:
        return self._written[table, key] if (table, key) in self._written else self.database.rows(table).get(key)

    def _all(self, table: str) -> dict[Key, Values]:
        found = dict(self.database.rows(table))
        for (name, key), values in self._written.items():
            if name == table:
                if values is None:
                    found.pop(key, None)
                else:
                    found[key] = values
        return found

    def _write(self, table: str, key: Key, values: Values | None) -> None:
        self._written[table, key] = values

    # -- statements -------------------------------------------------------------------------------------------------------
    async def execute(self, statement: Any, parameters: Any = None) -> Result:
        """Run one of the chassis' statements."""
        if not self.autocommit:
            return await self._execute(statement, parameters)
        try:
            result = await self._execute(statement, parameters)
            self.commit()
            return result
        finally:
            self.roll_back()

    async def _execute(self, statement: Any, parameters: Any) -> Result:
        await turn()
        if self.lost:
            raise ConnectionLost("the session is gone")
        if self.hangs:
            self.lost = True
            raise TimeoutError
        text: str = statement.text
        known = _STATEMENTS.get(text)
        if known is not None:
            result = await known(self, parameters or {})
        else:
            for pattern, handler in _PATTERNS:
                if match := pattern.match(text):
                    result = await handler(self, match, parameters or {})
                    break
            else:
                raise NotImplementedError(f"the simulation does not know this statement; add it to database.py:\n{text}")
        return Result(result)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        """Return the first column of the first row."""
        return (await self.execute(statement, parameters)).scalar_one_or_none()

    async def get_raw_connection(self) -> "Connection":
        """Return this object, which also replaces the driver's connection."""
        return self

    @property
    def driver_connection(self) -> "Connection":
        return self

    async def copy_records_to_table(
        self, table: str, *, schema_name: str, columns: Sequence[str], records: Iterable[Sequence[Any]]
    ) -> None:
        """Add rows, like asyncpg."""
        for record in records:
            values = dict(zip(columns, record, strict=True))
            key = (values.pop("key"),)
            if self._row(table, key) is not None:
                raise ValueError(f"{table} {key} is there already")
            self._write(table, key, values)

    async def insert_positions(self, given: Any) -> list[Any]:
        for item in given if isinstance(given, list) else [given]:
            key = (item["topic"], item["partition"])
            if self._row("position", key) is None:
                await self._hold(("position", key))
            if self._row("position", key) is None:
                self._write("position", key, {"next_offset": 0, "withheld": False})
        return []

    async def read_positions(self, _: Values) -> list[Any]:
        return [(*key, values["next_offset"]) for key, values in sorted(self._all("position").items())]

    async def lock_positions(self, given: Values) -> list[Any]:
        found = []
        for key in sorted(zip(given["topics"], given["partitions"], strict=True)):
            if self.database.rules.position_locks:
                await self._hold(("position", key))
            values = self._row("position", key)
            if values is not None:
                found.append((*key, values["next_offset"], values["withheld"]))
        return found

    async def lock_all_positions(self, _: Values) -> list[Any]:
        for key in sorted(self._all("position")):
            await self._hold(("position", key))
        return await self.read_positions({})

    async def move_positions(self, given: Values) -> list[Any]:
        for topic, number, offset in zip(given["topics"], given["partitions"], given["offsets"], strict=True):
            known = self._row("position", (topic, number)) or {"withheld": False}
            self._write("position", (topic, number), {**known, "next_offset": offset})
        return []

    async def insert_inbox(self, given: Values) -> list[Any]:
        names = ("identities", "topics", "partitions", "offsets", "appended_at")
        counts = []
        for *key, topic, number, offset, at in zip(
            given["sources"], given["ids"], *(given[name] for name in names), strict=True
        ):
            place = tuple(key)
            at = at if self.database.rules.window_of_the_log else self.database.clock.now
            await self._hold(("inbox", place))
            known = self._row("inbox", place)
            if known is None or at > known["appended_at"] + kernel.INBOX_WINDOW:
                known = {"topic": topic, "partition": number, "offset": offset, "appended_at": at}
                self._write("inbox", place, known)
            counts.append((key[-1], known["offset"], known["appended_at"]))
        return counts

    async def insert_outbox(self, given: Values) -> list[Any]:
        positions = []
        for values in zip(*(given[name] for name in transaction.OUTBOX_COLUMNS), strict=True):
            self.database.serial += 1
            self._write("outbox", (self.database.serial,), dict(zip(transaction.OUTBOX_COLUMNS, values, strict=True)))
            positions.append((self.database.serial,))
        return positions

    async def read_outbox(self, _: Values) -> list[Any]:
        return [Unsent(values[name] for name in Unsent.NAMES) for _, values in sorted(self._all("outbox").items())]

    async def read_waiting(self, given: Values) -> list[Any]:
        return [
            OutboxRow((key[0], *(values[name] for name in OutboxRow.NAMES[1:])))
            for key, values in sorted(self._all("outbox").items())
            if key[0] > given["after"] and values["aggregateid"] not in given["blocked"]
        ]

    async def snapshot(self, _: Values) -> list[Any]:
        following = self.database.begun + 1
        oldest = min((connection.number for connection in self.database.open), default=following)
        return [SimpleNamespace(xmin=oldest, xmax=following)]

    async def measure_waiting(self, _: Values) -> list[Any]:
        waiting = self._all("outbox")
        return [{"rows": len(waiting), "first": min(waiting, default=(None,))[0], "seconds": 0}]

    async def remove_sent(self, given: Values) -> list[Any]:
        for position in given["positions"]:
            self._write("outbox", (position,), None)
        return []

    async def remove_and_read(self, given: Values) -> list[Any]:
        await self.remove_sent(given)
        return await self.read_waiting(given)

    async def insert_sweep(self, given: Values) -> list[Any]:
        self._write("sweep", (given["aggregate"], given["key"]), {})
        return []

    async def read_sweep(self, given: Values) -> list[Any]:
        return [(key,) for aggregate, key in sorted(self._all("sweep")) if aggregate == given["aggregate"]]

    async def swept(self, given: Values) -> list[Any]:
        self._write("sweep", (given["aggregate"], given["key"]), None)
        return []

    async def nothing(self, _: Values) -> list[Any]:
        return []

    # aggregates
    async def lock_rows(self, match: re.Match[str], given: Values) -> list[Any]:
        """Read one snapshot: rows that others commit during its waits are missing unless they existed before; from the
        first table with such a row on, nothing is inserted and locked."""
        tables = [
            (name, given[f"keys_{number}"])
            for number, name in re.findall(r"absent_(\d+) AS \(\s*INSERT INTO (\w+)", match[0])
        ]
        seen = {(table, key) for table, keys in tables for key in keys if self._row(table, (key,)) is not None}
        entered = await self.insert_inbox(given) if "entered AS" in match[0] else []
        found: list[Any] = [(None, None, identity, offset, *[None] * 6, at) for identity, offset, at in entered]
        for table, keys in tables:
            new = await self._insert_absent(table, keys)
            found += [(table, key, None, 0, *[None] * 6, self.database.clock.now) for key in new]
            known = [key for key in keys if (table, key) in seen]
            if len(known) + len(new) < len(keys):
                break
            found += [
                (table, key, None, *row, self.database.clock.now)
                for key, *row in await self._select(table, known, lock=True)
            ]
        return found

    async def _insert_absent(self, table: str, keys: Iterable[str]) -> list[str]:
        await self._writes(table)
        new = []
        for name in sorted(keys):
            key = (name,)
            if self._row(table, key) is None and self.database.rules.row_locks:
                await self._hold((table, key))
            if self._row(table, key) is None:
                self._write(table, key, dict(_ABSENT))
                new.append(name)
        return new

    async def _select(self, table: str, keys: Iterable[str], *, lock: bool) -> list[Any]:
        found = []
        for name in sorted(keys):
            if lock and self.database.rules.row_locks:
                await self._hold((table, (name,)))
            row = self._row(table, (name,))
            if row is not None:
                columns = ("sequence", "state", "created_at", "updated_at", "offsets", "own_event_id", "own_ids")
                found.append((name, *(row[column] for column in columns)))
        return found

    async def read_rows(self, match: re.Match[str], given: Values) -> list[Any]:
        return await self._select(match[1], given["keys"], lock=False)

    async def write(self, match: re.Match[str], given: Values) -> list[Any]:
        for number, table in re.findall(r"saved_(\d+) AS \(UPDATE (\w+)", match[0]):
            ending = f"_{number}"
            await self._update(
                table, {name.removesuffix(ending): of for name, of in given.items() if name.endswith(ending)}
            )
        positions = await self.insert_outbox(given) if "filled AS" in match[0] else []
        if "moved AS" in match[0]:
            await self.move_positions(given)
        return positions

    async def _update(self, table: str, given: Values) -> None:
        await self._writes(table)
        names = [name for name in given if name != "key"]
        for key, *values in zip(given["key"], *(given[name] for name in names), strict=True):
            row = dict(zip(names, values, strict=True))
            if row["state"] is None:  # only its offsets have changed
                row = {**(self._row(table, (key,)) or {}), "offsets": row["offsets"]}
            self._write(table, (key,), row)

    async def due_rows(self, match: re.Match[str], _: Values) -> list[Any]:
        now = self.database.clock.now
        due = [(row["due_at"], key) for key, row in self._all(match[1]).items() if row["due_at"] and row["due_at"] <= now]
        return [key for _, key in sorted(due)]

    async def lock_tables(self, match: re.Match[str], _: Values) -> list[Any]:
        for name in match[1].split(", "):
            await self.lock_table(name.rpartition(".")[2])
        return []

    # work
    async def enqueue(self, given: Values) -> list[Any]:
        names = ("priorities", "requested_at", "waits", "cancel")
        for key, priority, requested, wait, cancel in zip(given["keys"], *(given[name] for name in names), strict=True):
            await self._hold(("work", (key,)))
            known = self._row("work", (key,))
            not_before = None if wait is None else self.database.clock.now + timedelta(seconds=wait)
            if not self.database.rules.waits_from_receipt:
                not_before = None if wait is None else requested + timedelta(seconds=wait)
            fresh = {
                "entered_at": self.database.clock.now, "priority": priority, "requested_at": requested, "not_before": not_before, "cancel": cancel, "lease": None,
                "leased_until": None,
            }  # fmt: skip
            self._write(
                "work", (key,), {**known, "cancel": known["cancel"] or cancel, "priority": priority} if known else fresh
            )
        return []

    async def requeue_open(self, _: Values) -> list[Any]:
        for (key,), row in sorted(self._all("attempt").items()):
            if row.get("status") in OPEN and self._row("work", (key,)) is None:
                await self._hold(("work", (key,)))
                if self._row("work", (key,)) is None:
                    fresh = {name: row[name] for name in ("priority", "requested_at")}
                    wait = row["not_before"] and row["not_before"] - row["requested_at"]
                    fresh["entered_at"] = self.database.clock.now
                    fresh["not_before"] = None if wait is None else self.database.clock.now + wait
                    cancel = row["status"] == "cancelling"
                    self._write("work", (key,), {**fresh, "cancel": cancel, "lease": None, "leased_until": None})
        return []

    async def remove_work(self, given: Values) -> list[Any]:
        for key in given["keys"]:
            await self._hold(("work", (key,)))
            self._write("work", (key,), None)
        return []

    async def claim(self, given: Values) -> list[Any]:
        now = self.database.clock.now
        for key, row in sorted(
            self._all("work").items(), key=lambda item: (-item[1]["priority"], item[1]["requested_at"], item[0])
        ):
            if claimable(row, now) and ("work", key) not in self.database.holders:
                await self._hold(("work", key))
                until = now + timedelta(seconds=given["seconds"])
                self._write("work", key, {**row, "lease": given["lease"], "leased_until": until})
                return [(*key, 0, 0, 0, ())]  # what it needs, and its GPUs; every attempt fits here
        return []

    async def _of_lease(self, given: Values) -> Values | None:
        key = ("work", (given["key"],))
        row = self._row("work", (given["key"],))
        if row is None or row["lease"] != given["lease"]:
            return None
        await self._hold(key)
        row = self._row("work", (given["key"],))
        return row if row is not None and row["lease"] == given["lease"] else None

    async def renew(self, given: Values) -> list[Any]:
        row = await self._of_lease(given)
        if row is None:
            return []
        until = self.database.clock.now + timedelta(seconds=given["seconds"])
        self._write("work", (given["key"],), {**row, "leased_until": until})
        return [(row["cancel"],)]

    async def release(self, given: Values) -> list[Any]:
        row = await self._of_lease(given)
        if row is None:
            return []
        self._write("work", (given["key"],), {**row, "lease": None, "leased_until": None})
        return [(given["key"],)]

    async def holds(self, given: Values) -> list[Any]:
        return [] if await self._of_lease(given) is None else [(0.0,)]  # the seconds that it was held

    def swap(self, shadow: Database, tables: Iterable[str]) -> None:
        """Replace the live rows by the shadow's, like `replay.shadow.swap`; rows whose state changed are added to
        `sweep`."""
        for table in tables:
            old, new = self._all(table), shadow.rows(table)
            for key in sorted(old.keys() | new.keys()):
                if key in new and (key not in old or not same_json(old[key]["state"], new[key]["state"])):
                    self._write("sweep", (table, key[0]), {})
                self._write(table, key, new.get(key))

    def adopt(self, shadow: Database, positions: Mapping[tuple[str, int], int]) -> None:
        """Take over the positions and the inbox of a shadow."""
        for key, values in shadow.rows("inbox").items():
            self._write("inbox", key, values)
        for partition, offset in positions.items():
            known = self._row("position", partition) or {"withheld": False}
            self._write("position", partition, {**known, "next_offset": offset})


def claimable(row: Values, now: Any) -> bool:
    """Return whether a worker may lease this work now."""
    return (row["not_before"] is None or row["not_before"] <= now) and (
        row["leased_until"] is None or row["leased_until"] <= now
    )


def same_json(one: Any, other: Any) -> bool:
    """Return whether two texts are equal as JSONB."""
    return bool(one == other or json.loads(one) == json.loads(other))


_Handler = Callable[[Connection, Any], Any]
_STATEMENTS: dict[str, _Handler] = {
    kernel.INSERT_POSITION.text: Connection.insert_positions,
    kernel.READ_POSITIONS.text: Connection.read_positions,
    kernel.LOCK_POSITIONS.text: Connection.lock_positions,
    kernel.MOVE_POSITIONS.text: Connection.move_positions,
    kernel.ENTER_INBOX.text: Connection.insert_inbox,
    kernel.INSERT_SWEEP.text: Connection.insert_sweep,
    kernel.NOTIFY.text: Connection.nothing,
    kernel.READ_OUTBOX.text: Connection.read_outbox,
    relay.READ.text: Connection.read_waiting,
    relay.REMOVE.text: Connection.remove_sent,
    relay.REMOVE_AND_READ.text: Connection.remove_and_read,
    relay.SNAPSHOT.text: Connection.snapshot,
    relay.WAITING.text: Connection.measure_waiting,
    identity.READ_IDENTITIES.text: Connection.nothing,
    identity.NOTE_IDENTITY.text: Connection.nothing,
    kernel.READ_SWEEP.text: Connection.read_sweep,
    kernel.DELETE_SWEEP.text: Connection.swept,
    replay.LOCK_ALL_POSITIONS.text: Connection.lock_all_positions,
    executor.ENQUEUE.text: Connection.enqueue,
    executor.REMOVE.text: Connection.remove_work,
    executor.WAKE.text: Connection.nothing,
    executor.REQUEUE_OPEN.text: Connection.requeue_open,
    executor.CLAIM.text: Connection.claim,
    executor.RENEW.text: Connection.renew,
    executor.RELEASE.text: Connection.release,
    executor.HOLDS.text: Connection.holds,
    **letters.STATEMENTS,
}


async def _silent(_connection: Connection, _match: re.Match[str], _given: Values) -> list[Any]:
    return []


_PATTERNS: list[tuple[re.Pattern[str], Any]] = [
    (re.compile(r"(?s)WITH (?:entered|absent_0) AS.*"), Connection.lock_rows),
    (re.compile(r"(?s)SELECT key, sequence, CAST.*?FROM (\w+) WHERE .*"), Connection.read_rows),
    (re.compile(r"(?s)WITH (?:saved_0|filled|moved) AS.*"), Connection.write),
    (re.compile(r"SELECT CAST\(NULLIF\(CAST\(pg_notify\(channel, payload\)"), _silent),
    (re.compile(r"SELECT key FROM (\w+) WHERE due_at"), Connection.due_rows),
    (re.compile(r"LOCK TABLE (.*) IN SHARE ROW EXCLUSIVE MODE"), Connection.lock_tables),
    (re.compile(r"SET LOCAL lock_timeout"), _silent),
]
