"""The same world with one rule taken away: each must be found out, else the simulation proves nothing.

A variant replaces one named place of the chassis or of a domain for the time of a run, or leaves out a rule of the environment.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from unittest.mock import patch

from schemas.envelope import Event
from schemas.jobs import StepEventData
from services.chassis.executor import transactions
from services.chassis.kernel.aggregate import Decision, Ref, States
from services.chassis.kernel.consuming.cursor import PartitionCursor
from services.chassis.kernel.deadletters import parking, repository
from services.chassis.kernel.numbering import EarlyEvents, Numbered, gap
from services.chassis.kernel.operations import handling
from services.chassis.kernel.records import Logged, Record, record_id_of
from services.chassis.kernel.relay import statements
from services.chassis.kernel.relay.outgoing import Outgoing
from services.chassis.kernel.transaction import batch, inbox
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.replay import fold
from services.chassis.replay.fold import Fold
from services.chassis.replay.projection import Folding
from services.orchestrator.domain import evolve as evolving
from services.orchestrator.domain import requests
from services.orchestrator.domain.state import Attempt, DecidedOn, Heard, JobState, Started
from tests.simulation.rules import SOUND, Rules
from tests.simulation.service import Sending

_LAST = datetime.max.replace(tzinfo=UTC)


def _no_stamp(self: UnitOfWork, incoming: Incoming) -> None:
    """`UnitOfWork.fold`, but without the offset of a skipped own event."""
    event, refs = incoming.event, self.domain.touches(incoming.event)
    skipped = self.skipped
    self._take(event, refs, incoming.logged)
    if self.skipped > skipped:
        return
    self._stamp(refs, incoming.logged)
    for ref in refs:
        self.settle(ref, cause=event)


def _last_time() -> Callable[[UnitOfWork, Event, Any, Any, Any], None]:
    evolve = UnitOfWork._evolve

    def last(self: UnitOfWork, event: Event, refs: Any, logged: Any, owner: Any) -> None:
        evolve(self, event, refs, logged, owner)
        for ref in refs:
            self.rows[ref].updated_at = event.time

    return last


def _no_inbox(_domain: Any, _decoded: Any) -> inbox.InboxEntries:
    return inbox.InboxEntries()


def _decides(self: Folding, ref: Ref, states: States, now: datetime) -> Decision | None:
    return self._domain.decide(ref, states, now)


async def _removed_first(_self: Sending, connection: Any, producer: Any, rows: Any, *_: Any) -> None:
    await connection.execute(statements.REMOVE, {"positions": [row.position for row in rows]})
    outgoing = Outgoing(producer)
    for row in rows:
        await outgoing.add(row)
    await outgoing.finish()


def _newest_first() -> Callable[..., Awaitable[None]]:
    send_rows = Sending._send_rows

    async def newest_first(self: Sending, connection: Any, producer: Any, rows: Any, *rest: Any) -> None:
        await send_rows(self, connection, producer, list(reversed(rows)), *rest)

    return newest_first


def _late_facts_ignored() -> Callable[[Attempt, Event, StepEventData, Logged | None], dict[str, Any]]:
    """`evolve` reads fields of another group: it drops an event that comes after the closing decision."""
    of_attempt = evolving._of_attempt

    def ignoring(known: Attempt, event: Event, data: StepEventData, logged: Logged | None) -> dict[str, Any]:
        found = of_attempt(known, event, data, logged)
        return {} if known.closed and "outcome" in found else found

    return ignoring


async def _any_lease(_connection: Any, _lease: Any) -> float:
    return 0.0


def _id_alone(record: Record, event: Event) -> bytes:
    return f"{event.source} {event.id}".encode()


def _first_read(state: JobState, request: Heard) -> JobState:
    """The order of the log is ignored: an event that is read later counts as later."""
    if state.wish is not None:
        request = request.model_copy(update={"logged": request.logged._replace(appended_at=_LAST)})
    return requests.heard(state, request)


def _undecided(state: JobState, _on: DecidedOn) -> JobState:
    return state


def _no_waiting(_self: EarlyEvents, owner: Ref, sequence: int, event: Event, _logged: object) -> None:
    raise gap(owner, sequence, event)


def _counted(known: Started | None, new: Started) -> Started:
    return new.model_copy(update={"times": known.times + 1 if known else 1})


async def _nothing_ahead(_self: Fold, _ends: Any, _waiting: Any) -> None:
    return None


def _to_the_end() -> Callable[..., Any]:
    """Folds beyond the positions of the live rows."""
    up_to = Fold.up_to

    async def beyond(self: Fold, ends: Mapping[Any, int], *rest: Any) -> None:
        partitions = cast(Any, fold).log.partitions
        await up_to(self, {partition: len(partitions[partition]) for partition in ends}, *rest)

    return beyond


def _nothing_held(_domain: Any, _record: Any, _event: Any) -> frozenset[str]:
    return frozenset()


async def _not_done(*_: Any) -> None:
    return None


async def _nothing_left_out(_connection: Any) -> set[Any]:
    return set()


async def _no_turn(*_: Any) -> None:
    return None


async def _given_up_in_silence(connection: Any, _handling: Any, letter: Any, reason: str, by: str) -> None:
    place = record_id_of(letter)
    await repository.discard(connection, place, reason, by)
    await repository.flag(connection, place[:2])


def _licence_of_any_seek() -> Callable[..., PartitionCursor]:
    sought = PartitionCursor.sought

    def licensed(self: PartitionCursor, offset: int, epoch: int, *, by_poller: bool) -> PartitionCursor:
        return sought(self, offset, epoch, by_poller=True)

    return licensed


@dataclass(frozen=True)
class Variant:
    """A fault that is put in: rules that do not hold, or code that is replaced."""

    rules: Rules = SOUND
    target: Any = None
    name: str = ""
    made: Callable[[], Any] | None = None
    first: int = 0
    """The seed at which the search starts: the one that last found the fault, where that is not the first."""

    @contextmanager
    def in_force(self) -> Iterator[Rules]:
        """Put the fault in during the block; yields the rules of the world."""
        if self.made is None:
            yield self.rules
            return
        with patch.object(self.target, self.name, self.made()):
            yield self.rules


def _at(target: Any, name: str, made: Callable[[], Any], first: int = 0) -> Variant:
    return Variant(target=target, name=name, made=made, first=first)


VARIANTS: dict[str, Variant] = {
    "echo_applied_again": _at(UnitOfWork, "_numbered", lambda: lambda *_: Numbered.NEXT),
    "skipped_without_offset": _at(UnitOfWork, "fold", lambda: _no_stamp),
    "time_of_last_write": _at(UnitOfWork, "_evolve", _last_time),
    "fold_reads_other_groups": _at(evolving, "_of_attempt", _late_facts_ignored, 32),
    "inbox_of_ids": _at(inbox, "identity", lambda: _id_alone, 3),
    "inbox_forgets_by_its_own_clock": Variant(Rules(window_of_the_log=False), first=10),
    "first_read_counts": _at(evolving, "heard", lambda: _first_read, 3),
    "decision_names_no_request": _at(evolving, "decided", lambda: _undecided, 177),
    "own_events_not_merged": _at(EarlyEvents, "hold", lambda: _no_waiting, 32),
    "starts_counted_as_read": _at(evolving, "_start", lambda: _counted, 258),
    "not_before_by_another_clock": Variant(Rules(waits_from_receipt=False)),
    "no_inbox": _at(batch, "entering", lambda: _no_inbox, 3),
    "replay_decides": _at(Folding, "decide", lambda: _decides),
    "replay_without_own_ahead": _at(Fold, "ahead", lambda: _nothing_ahead, 2),
    "replay_beyond_positions": _at(Fold, "up_to", _to_the_end, 2),
    "removed_before_sent": _at(Sending, "_send_rows", lambda: _removed_first, 53),
    "sent_newest_first": _at(Sending, "_send_rows", _newest_first),
    "no_lease_token": _at(transactions, "used_seconds", lambda: _any_lease, 19),
    "no_row_locks": Variant(Rules(row_locks=False), first=4),
    "no_position_locks": Variant(Rules(position_locks=False)),
    "lost_without_restore": Variant(Rules(restores=False), first=15),
    "nothing_parked": _at(parking, "waits_for", lambda: _nothing_held, 17),
    "retried_and_kept": _at(repository, "remove", lambda: _not_done, 2),
    "retried_out_of_turn": _at(handling, "_in_turn", lambda: _no_turn, 127),
    "discarded_without_a_fact": _at(handling, "_discard", lambda: _given_up_in_silence),
    "discards_not_learned": _at(repository, "learn", lambda: _not_done, 88),
    "replay_folds_what_is_withheld": _at(repository, "record_ids", lambda: _nothing_left_out, 14),
    "position_not_flagged": _at(repository, "flag", lambda: _not_done, 2),
    "licence_of_any_seek": _at(PartitionCursor, "sought", _licence_of_any_seek, 220),
}
SOUND_VARIANT = Variant()
