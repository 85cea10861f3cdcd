"""Calls `decide` for rows that become due without an event (deadline, retry, grace); it finds them by `due_at` (rule 3).

It also calls `decide` once for every row that a rebuild changed; the table `sweep` lists them until then (rule 5).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kernel import statements
from services.chassis.kernel.aggregate import Domain, Ref
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.transaction.commands import transact
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, described, is_transient, wait_or_stop

_log = get_logger(__name__)
_RETRY_SECONDS = 60.0
_AWAY_SECONDS = 5.0
"""A row whose transaction failed with a transient error is left out this long, so that other rows are tried first."""
_SHOWN = 3


class Undecided(NamedTuple):
    """A due row whose decision failed."""

    until: float
    """When it is tried again, on the event loop's clock."""
    reason: str


@dataclass
class Ticker:
    """Calls `decide` for due rows, each in a transaction of its own, so that one faulty row delays no other.

    The service is not ready while a faulty row waits: its job makes no progress, and nothing else would report that.
    """

    engine: AsyncEngine
    domain: Domain
    effects: Effects | None
    health: Health
    seconds: float = 0.5

    async def run(self, stop: asyncio.Event) -> None:
        """Look for due rows every `seconds` until `stop`."""
        backoff, failures = Backoff(), FailureLog(_log)
        faulty: dict[Ref, Undecided] = {}
        wait = 0.0
        while not await wait_or_stop(stop, wait):
            wait = self.seconds
            try:
                await self._look(faulty)
                backoff.reset()
                failures.recovered()
                self.health.report("deciding", not faulty, _said(faulty))
            except Exception as error:
                failures.failed("ticker interrupted", error)
                self.health.report("deciding", False, _said(faulty) or described(error))
                wait += backoff.next()

    async def _look(self, faulty: dict[Ref, Undecided]) -> None:
        clock = asyncio.get_running_loop().time
        for name in self.domain.aggregates:
            waiting = [ref.key for ref, failed in faulty.items() if ref.aggregate == name and failed.until > clock()]
            async with self.engine.connect() as connection:
                due = await connection.execute(statements.due_rows(name), {"waiting": waiting})
                refs = [Ref(name, key) for (key,) in due]
                swept = await connection.execute(statements.READ_SWEEP, {"aggregate": name, "waiting": waiting})
                refs += [Ref(name, key) for (key,) in swept]
            if len(refs) < statements.DUE_ROWS:  # all due rows are here: a faulty one that is not is no longer due
                for gone in [ref for ref in faulty if ref.aggregate == name and ref.key not in waiting and ref not in refs]:
                    del faulty[gone]
            for ref in refs:
                try:
                    async with transact(self.engine, self.domain, self.effects, [ref]) as command:
                        command.unit.settle(ref)
                        command.unit.rows[ref].changed = True  # an earlier release may have written another `due_at`
                        await command.connection.execute(statements.DELETE_SWEEP, ref._asdict())
                    faulty.pop(ref, None)
                except Exception as error:
                    away = is_transient(error)
                    faulty[ref] = Undecided(clock() + (_AWAY_SECONDS if away else _RETRY_SECONDS), described(error))
                    if away:
                        raise
                    _log.exception("a due decision failed; it is retried later", aggregate=ref.aggregate, key=ref.key)


def _said(faulty: Mapping[Ref, Undecided]) -> str:
    shown = [f"{ref.aggregate} {ref.key} is due, but deciding failed: {failed.reason}" for ref, failed in faulty.items()]
    more = [f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return "; ".join(shown[:_SHOWN] + more)[:2000]
