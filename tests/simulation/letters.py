"""Dead letters in the database in memory: `deadletters.statements` and the restore's own statement.

A statement reads what was committed when it began, also where it then waits for a row, as under READ COMMITTED.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from services.chassis.kernel.deadletters import statements
from services.chassis.replay import statements as replay

if TYPE_CHECKING:
    from tests.simulation.database import Connection

Values = dict[str, Any]
_TABLE = "dead_letter"
_ADDED: Values = {
    "error": "", "stack": None, "attempts": 0, "key": None, "value": None, "correlation_id": None, "names": [],
}  # fmt: skip
BLOCKED = ("failed", "parked")


def _place(given: Mapping[str, Any]) -> tuple[Any, ...]:
    return given["topic"], given["partition"], given["offset"]


def _of_partition(connection: "Connection", given: Values) -> list[tuple[int, Values]]:
    """Return the dead letters of a partition by their offsets, in order."""
    here = given["topic"], given["partition"]
    return [(key[2], row) for key, row in sorted(connection._all(_TABLE).items()) if key[:2] == here]


async def _insert(connection: "Connection", given: Any) -> list[Any]:
    for values in given if isinstance(given, list) else [given]:
        row = {"reason": None, "discarded_by": None, "recorded_at": connection.database.clock.now, **_ADDED, **values}
        await _add(connection, {"blocked_by": None, **row})
    return []


async def _learn(connection: "Connection", given: Any) -> list[Any]:
    for values in given:
        row = {**_ADDED, **values, "state": "discarded", "headers": "[]", "blocked_by": None}
        await _add(connection, {**row, "recorded_at": connection.database.clock.now})
    return []


async def _add(connection: "Connection", row: Values) -> None:
    """Insert with ON CONFLICT DO NOTHING."""
    if connection._row(_TABLE, _place(row)) is None:
        await connection._hold((_TABLE, _place(row)))
        if connection._row(_TABLE, _place(row)) is None:
            connection._write(_TABLE, _place(row), row)


async def _one(connection: "Connection", given: Values) -> list[Any]:
    row = connection._row(_TABLE, _place(given))
    return [] if row is None else [row]


async def _one_locked(connection: "Connection", given: Values) -> list[Any]:
    await connection._hold((_TABLE, _place(given)))
    return await _one(connection, given)


async def _blocking(connection: "Connection", given: Values) -> list[Any]:
    return [
        (given["topic"], given["partition"], offset, row["names"])
        for offset, row in _of_partition(connection, given)
        if row["state"] in BLOCKED and set(row["names"]) & set(given["names"])
    ]


async def _discarded(connection: "Connection", given: Values) -> list[Any]:
    return [
        (given["topic"], given["partition"], offset)
        for offset, row in _of_partition(connection, given)
        if row["state"] == "discarded" and offset >= given["first"]
    ]


async def _blocked(connection: "Connection", given: Values) -> list[Any]:
    return [
        (offset, *(row[name] for name in ("state", "key", "names", "blocked_by")))
        for offset, row in _of_partition(connection, given)
        if row["state"] in BLOCKED and offset > given["after"]
    ][: statements.PAGE]


async def _freed(connection: "Connection", _: Values) -> list[Any]:
    letters = connection._all(_TABLE)
    return sorted(
        {
            key[:2]
            for key, row in letters.items()
            if row["state"] == "parked" and letters.get((*key[:2], row["blocked_by"]), {}).get("state") not in BLOCKED
        }
    )


async def _parked(connection: "Connection", given: Values) -> list[Any]:
    return [(sum(row["state"] == "parked" for _, row in _of_partition(connection, given)),)]


async def _record_ids(connection: "Connection", _: Values) -> list[Any]:
    return sorted(connection._all(_TABLE))


async def _change(connection: "Connection", given: Values, **changed: Any) -> list[Any]:
    place = _place(given)
    await connection._hold((_TABLE, place))
    if (row := connection._row(_TABLE, place)) is not None:
        connection._write(_TABLE, place, {**row, **changed})
    return []


async def _failed(connection: "Connection", given: Values) -> list[Any]:
    return await _change(connection, given, state="failed", error=given["error"], stack=given["stack"])


async def _still_unreadable(connection: "Connection", given: Values) -> list[Any]:
    return await _change(connection, given, error=given["error"])


async def _discard(connection: "Connection", given: Values) -> list[Any]:
    said = {name: given[name] for name in ("reason", "discarded_by")}
    return await _change(connection, given, **said, state="discarded", blocked_by=None, names=[])


async def _wait_for(connection: "Connection", given: Values) -> list[Any]:
    for offset, behind in zip(given["offsets"], given["blocked_by"], strict=True):
        place = (given["topic"], given["partition"], offset)
        await connection._hold((_TABLE, place))
        row = connection._row(_TABLE, place)
        if row is not None and row["state"] == "parked":
            connection._write(_TABLE, place, {**row, "blocked_by": behind})
    return []


async def _remove(connection: "Connection", given: Values) -> list[Any]:
    await connection._hold((_TABLE, _place(given)))
    connection._write(_TABLE, _place(given), None)
    return []


async def _unpublish(_connection: "Connection", _given: Values) -> list[Any]:
    return []


async def _flag(connection: "Connection", given: Values) -> list[Any]:
    """Set the flag from the dead letters at the statement's start; wait for the position's row, and use its newest
    version."""
    letters = _of_partition(connection, given)
    key = (given["topic"], given["partition"])
    await connection._hold(("position", key))
    if (row := connection._row("position", key)) is not None:
        withheld = any(
            letter["state"] in BLOCKED or (letter["state"] == "discarded" and offset >= row["next_offset"])
            for offset, letter in letters
        )
        connection._write("position", key, {**row, "withheld": withheld})
    return []


async def _recent(connection: "Connection", given: Values) -> list[Any]:
    counted = ("failed", "unreadable") if given["unreadable"] else ("failed",)
    return [
        (offset,)
        for offset, row in _of_partition(connection, given)
        if given["first"] <= offset < given["end"] and row["state"] in counted
    ]


async def _forget(connection: "Connection", _: Values) -> list[Any]:
    """Remove the inbox entries of records that a restore has skipped."""
    places = {key for key, row in connection._all(_TABLE).items() if row["state"] in BLOCKED}
    for key, row in connection._all("inbox").items():
        if _place(row) in places:
            connection._write("inbox", key, None)
    return []


STATEMENTS = {
    statements.INSERT.text: _insert,
    statements.LEARN.text: _learn,
    statements.FIND.text: _one,
    statements.FIND_LOCKED.text: _one_locked,
    statements.BLOCKING.text: _blocking,
    statements.DISCARDED.text: _discarded,
    statements.READ_BLOCKED.text: _blocked,
    statements.FREED_PARTITIONS.text: _freed,
    statements.COUNT_PARKED.text: _parked,
    statements.RECORD_IDS.text: _record_ids,
    statements.FAIL_AGAIN.text: _failed,
    statements.STILL_UNREADABLE.text: _still_unreadable,
    statements.DISCARD.text: _discard,
    statements.WAIT_FOR.text: _wait_for,
    statements.REMOVE.text: _remove,
    statements.UNPUBLISH.text: _unpublish,
    statements.FLAG.text: _flag,
    statements.RECENT.text: _recent,
    replay.FORGET_DEAD_LETTERS.text: _forget,
}
