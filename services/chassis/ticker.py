"""Why: what falls due without an event (deadline, retry, grace) is found by `due_at` and decided like everything else (rule 3).

So is what a rebuild changed: its rows lie in `sweep` until they were asked about once (rule 5).
"""

import asyncio
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.aggregate import Domain, Ref
from services.chassis.commands import transact
from services.chassis.effects import Effects
from services.chassis.logging import get_logger
from services.chassis.surroundings import Backoff, described, is_surroundings, wait_or_stop

_log = get_logger(__name__)
_ROWS = 100
_RETRY_SECONDS = 60.0
_SWEEP = text(
    f"""SELECT key FROM sweep WHERE aggregate = :aggregate AND NOT (key = ANY(CAST(:waiting AS text[]))) LIMIT {_ROWS}"""
)
_SWEPT = text("DELETE FROM sweep WHERE aggregate = :aggregate AND key = :key")


@dataclass
class Ticker:
    """Asks `decide` about rows that are due, each in a transaction of its own, so that one faulty row delays no other."""

    engine: AsyncEngine
    domain: Domain
    effects: Effects | None
    seconds: float = 0.5

    async def run(self, stop: asyncio.Event) -> None:
        """Look every `seconds` until `stop`."""
        backoff = Backoff()
        faulty: dict[Ref, float] = {}
        while not await wait_or_stop(stop, self.seconds):
            try:
                await self._look(faulty)
                backoff.reset()
            except Exception as error:
                log = _log.warning if is_surroundings(error) else _log.exception
                log("ticker interrupted", error=described(error))
                await wait_or_stop(stop, backoff.next())

    async def _look(self, faulty: dict[Ref, float]) -> None:
        clock = asyncio.get_running_loop().time
        for name in self.domain.aggregates:
            waiting = [ref.key for ref, until in faulty.items() if ref.aggregate == name and until > clock()]
            async with self.engine.connect() as connection:
                due = await connection.execute(
                    text(
                        f"""SELECT key FROM {name} WHERE due_at <= clock_timestamp()
                            AND NOT (key = ANY(CAST(:waiting AS text[]))) ORDER BY due_at LIMIT {_ROWS}"""
                    ),
                    {"waiting": waiting},
                )
                refs = [Ref(name, key) for (key,) in due]
                swept = await connection.execute(_SWEEP, {"aggregate": name, "waiting": waiting})
                refs += [Ref(name, key) for (key,) in swept]
            for ref in refs:
                try:
                    async with transact(self.engine, self.domain, self.effects, [ref]) as command:
                        command.unit.settle(ref)
                        await command.connection.execute(_SWEPT, ref._asdict())
                    faulty.pop(ref, None)
                except Exception as error:
                    if is_surroundings(error):
                        raise
                    _log.exception("a due decision failed; it waits", aggregate=ref.aggregate, key=ref.key)
                    faulty[ref] = clock() + _RETRY_SECONDS
