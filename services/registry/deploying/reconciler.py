"""Brings what a driver serves to what deployments want, and tells what it sees as own events.

One process of the registry reconciles, by an advisory lock; its passes look only at rows and at what the driver observes now, so that
a restart, a rebuild or an outage of the database leaves nothing to remember. While the database is away, what is served stays served.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from schemas.deployments import DeploymentRequested, PairsJudged
from services.chassis.kernel.aggregate import Decision
from services.chassis.postgres.exclusive import Exclusive, exclusive
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, described, is_transient, until_stopped, wait_or_stop
from services.chassis.serving.runtime import Runtime
from services.registry.deploying import statements
from services.registry.deploying.driver import Driver
from services.registry.deploying.slots import Place, SlotRow, checked, values_of
from services.registry.deploying.wishes import target_of
from services.registry.domain.deployments.analysis import Measured, Traffic
from services.registry.domain.deployments.deciding import Seen, observed, trouble
from services.registry.domain.deployments.judged import JudgementState, pairs_judged
from services.registry.domain.deployments.state import DeploymentState, deployment_ref, slot_of
from services.registry.locks import RECONCILER_LOCK
from services.registry.shadowing.statements import JUDGEMENTS

_log = get_logger(__name__)
_POLL_SECONDS = 0.5
_STANDBY_SECONDS = 1.0
_DRIVER_SECONDS = 5.0
"""A driver that does not answer for this long says nothing: what is known of its slots becomes old."""
DRAIN_SECONDS = 30.0
"""How long a slot that is no longer wanted may finish what it has begun to answer."""


class _Wanted(NamedTuple):
    """What the rows say at a moment."""

    deployments: Mapping[str, DeploymentState]
    now: datetime

    def places(self) -> Mapping[Place, DeploymentRequested]:
        """Return the wish of every slot that has to be served."""
        return {(name, slot_of(wish)): wish for name, state in self.deployments.items() for wish in state.slots(self.now)}


@dataclass
class Reconciler:
    """The reconciler of one process and its driver. `follow` makes the next generation of a deployment whose alias has moved."""

    runtime: Runtime
    driver_of: Callable[[], Driver]
    follow: Callable[[str], Awaitable[None]]
    _tries: "_Tries" = field(default_factory=lambda: _Tries())
    _unready: dict[Place, float] = field(default_factory=dict)
    """Since when a slot does not serve what it should, on the clock of this process."""
    _faulty: dict[str, str] = field(default_factory=dict)
    """What is wrong with the deployments that could not be changed."""

    async def run(self, stop: asyncio.Event) -> None:
        """Reconcile until `stop`, then end what is served."""
        driver, backoff, failures = self.driver_of(), Backoff(), FailureLog(_log)
        try:
            with self.runtime.notifications.subscribe(statements.CHANNEL) as woken:
                while not stop.is_set():
                    try:
                        async with exclusive(self.runtime.engine) as session:
                            if await self._await_turn(session, driver, stop):
                                while not stop.is_set():
                                    await self.once(session, driver)
                                    backoff.reset()
                                    failures.recovered()
                                    await until_stopped(woken.wait(_POLL_SECONDS), stop)
                    except Exception as error:
                        failures.failed("deployments could not be reconciled", error)
                        await wait_or_stop(stop, backoff.next())
        finally:
            await driver.close()

    async def _await_turn(self, session: Exclusive, driver: Driver, stop: asyncio.Event) -> bool:
        """Wait for the lock; False if `stop` is set first. While another process has it, this one serves nothing."""
        while not await session.take(RECONCILER_LOCK):
            await driver.stand_by(DRAIN_SECONDS)
            if await wait_or_stop(stop, _STANDBY_SECONDS):
                return False
        return True

    async def once(self, session: Exclusive, driver: Driver) -> None:
        """Compare once and act. Raises the errors of the database, and those of a driver that fails or does not answer."""
        wanted = await _read(session)
        places = wanted.places()
        async with asyncio.timeout(_DRIVER_SECONDS):
            seen = checked(await driver.observed(), wanted.now)
            await self._serve(driver, places, seen)
            await self._remove(driver, (row for place, row in seen.items() if place not in places))
        for place, wish in places.items():
            seen.setdefault(place, SlotRow.missing(place[0], wish, wanted.now))
        await session.execute(statements.OBSERVED, values_of(list(seen.values())))
        await self._decide(wanted, self._watched(places, seen), await _measured(session, wanted))
        for (name,) in await session.execute(statements.FOLLOWERS):
            with self._apart(name):
                await self.follow(name)

    async def _serve(
        self, driver: Driver, places: Mapping[Place, DeploymentRequested], seen: Mapping[Place, SlotRow]
    ) -> None:
        self._tries.only(places)
        for place, wish in places.items():
            failed = place in seen and seen[place].state == "failed"
            if self._tries.may(place, failed):
                await driver.ensure(target_of(wish))

    async def _remove(self, driver: Driver, rows: Iterable[SlotRow]) -> None:
        for row in rows:
            if row.state != "draining":
                await driver.remove(row.deployment, row.slot, DRAIN_SECONDS)

    def _watched(self, places: Mapping[Place, DeploymentRequested], rows: Mapping[Place, SlotRow]) -> Mapping[Place, Seen]:
        """Return what is seen of each wanted slot, and for how long it has not served."""
        clock, before, self._unready = time.monotonic(), self._unready, {}
        watched = {}
        for place, wish in places.items():
            if trouble(wish, rows[place].seen(0)) is not None:
                self._unready[place] = before.get(place, clock)
            watched[place] = rows[place].seen(clock - self._unready.get(place, clock))
        return watched

    async def _decide(self, wanted: _Wanted, watched: Mapping[Place, Seen], measured: Mapping[str, Measured]) -> None:
        for name, state in wanted.deployments.items():
            slots = {slot: seen for (deployment, slot), seen in watched.items() if deployment == name}
            if observed(state, slots, wanted.now, measured.get(name)) is not None:
                with self._apart(name):
                    await self._apply(name, state, slots, measured.get(name))

    async def _apply(
        self, name: str, before: DeploymentState, slots: Mapping[str, Seen], measured: Measured | None
    ) -> None:
        """Decide under the lock of the deployment, which may have changed; what was measured is of the step before then."""
        async with self.runtime.transact([deployment_ref(name)]) as command:
            state = command.unit.states[deployment_ref(name)]
            assert isinstance(state, DeploymentState)
            same = (state.target, state.percent) == (before.target, before.percent)
            if decision := observed(state, slots, command.unit.now, measured if same else None):
                command.unit.apply(decision)
                _note(decision)
                await command.connection.execute(statements.NOTIFY, {"name": name})

    @contextmanager
    def _apart(self, name: str) -> Iterator[None]:
        """Keep a fault of one deployment from the others; it is logged when it begins or changes. The database's faults are raised."""
        try:
            yield
        except Exception as error:
            if is_transient(error):
                raise
            if self._faulty.get(name) != (said := described(error)):
                _log.warning("a deployment could not be changed; it is tried again", deployment=name, error=said)
            self._faulty[name] = said
        else:
            self._faulty.pop(name, None)


class _Tries:
    """When a slot that failed is tried again: after a while that doubles."""

    def __init__(self) -> None:
        self._backoffs: dict[Place, Backoff] = {}
        self._after: dict[Place, float] = {}

    def only(self, places: Iterable[Place]) -> None:
        """Forget the slots that nobody wants."""
        for place in self._backoffs.keys() - set(places):
            del self._backoffs[place], self._after[place]

    def may(self, place: Place, failed: bool) -> bool:
        """Return whether the driver is asked for the slot now."""
        if not failed:
            self._backoffs.pop(place, None)
            self._after.pop(place, None)
            return True
        clock = time.monotonic()
        if place in self._after and clock >= self._after[place]:
            self._after[place] = clock + self._backoffs[place].next()
            return True
        if place not in self._after:
            self._backoffs[place] = Backoff(5.0, 120.0)
            self._after[place] = clock + self._backoffs[place].next()
        return False


async def _read(session: Exclusive) -> _Wanted:
    rows: list[Any] = list(await session.execute(statements.OPEN))
    now = rows[0][2].astimezone(UTC) if rows else datetime.now(UTC)
    return _Wanted({key: DeploymentState.stored(state) for key, state, _ in rows}, now)


async def _measured(session: Exclusive, wanted: _Wanted) -> Mapping[str, Measured]:
    """Return what the callers of each canary got, as all processes counted it, and forget those of rollouts that have ended."""
    counts = defaultdict[str, Measured](Measured)
    rollouts = {
        name: state.target.generation
        for name, state in wanted.deployments.items()
        if state.target is not None and state.percent is not None
    }
    ended = False
    rows: list[Any] = list(await session.execute(statements.TRAFFIC))
    for name, rollout, percent, target, requests, errors, empty, latencies in rows:
        count, known = Traffic(requests, errors, empty, tuple(json.loads(latencies))), counts[name]
        if rollouts.get(name) != rollout:
            ended = True
        elif not target:
            counts[name] = known._replace(active=known.active.plus(count))
        elif percent == wanted.deployments[name].percent:
            counts[name] = known._replace(target=known.target.plus(count))
    for name, judged in (await _judged(session, rollouts)).items():
        counts[name] = counts[name]._replace(judged=judged)
    if ended:
        current = {"deployments": list(rollouts), "rollouts": list(rollouts.values())}
        await session.execute(statements.FORGET_TRAFFIC, current)
    return counts


async def _judged(session: Exclusive, rollouts: Mapping[str, int]) -> Mapping[str, PairsJudged]:
    """Return what judges said about the answers of each canary; none for one about which they said nothing yet."""
    said = defaultdict[str, list[JudgementState]](list)
    keys = {"deployments": list(rollouts), "rollouts": list(rollouts.values())}
    for (text,) in list(await session.execute(JUDGEMENTS, keys)) if rollouts else ():
        state = JudgementState.stored(text)
        if state.asked is not None:
            said[state.asked.deployment].append(state)
    return {name: found for name, states in said.items() if (found := pairs_judged(states)) is not None}


def _note(decision: Decision) -> None:
    told = decision.data.model_dump(include={"deployment", "version", "generation", "reason", "message"})
    _log.info("a deployment changed", event_type=decision.data.type_name(), **told)
