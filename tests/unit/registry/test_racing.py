"""Whatever people, jobs, drivers and the clock do at once, no caller is led to a version that was given up, and no alias to one that is gone.

One model and one deployment that may follow its alias live their whole life here, in memory: the real domain, unit of work and routing.
People act on what they saw some time ago. `test_replay.py` has several models and the order in which records come back.
"""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from schemas.deployments import DeploymentRequested, DeploymentRolledBack, Rollout
from schemas.envelope import Event
from schemas.gates import AliasPolicy, Gate
from schemas.models import AliasMoved, ModelRegistered
from schemas.versions import ARCHIVED, DELETED, DEPRECATED, LIVE, OUT_OF_USE
from services.chassis.kernel.aggregate import Decision, Ref, State
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.serving.problem import Problem
from services.registry.calling.routing import RoutingTable
from services.registry.changing import etag, refuse_stale
from services.registry.domain.aliases import Change, ChangeRefused, earlier_version, remove
from services.registry.domain.approving import decline, waiting_for
from services.registry.domain.deployments.analysis import Measured, Traffic
from services.registry.domain.deployments.deciding import (
    GRACE_SECONDS,
    NOWHERE,
    DeploymentRefused,
    Seen,
    advance,
    observed,
    request,
    retire,
    retry,
    roll_back,
)
from services.registry.domain.deployments.state import DeploymentState, deployment_ref, slot_of
from services.registry.domain.models import RegistryDomain
from services.registry.domain.policies import set_policy
from services.registry.domain.promoting import Decided, Wish, approval, promotion, rollback, rows_needed
from services.registry.domain.registering import further_rows, register, rows_of
from services.registry.domain.requests import request_ref
from services.registry.domain.state import ModelState, RegistrationState, model_ref, move_ref, registration_ref
from services.registry.domain.version_states import StateRefused, change_state, remove_files
from services.registry.domain.versioning import Version
from tests.deployments import failing, serving, wish
from tests.explored import examples
from tests.steps import request as step_request
from tests.unit.registry.test_models import a_lineage, wanted

MODEL, SUPPORT = model_ref("router"), deployment_ref("support")
PRODUCTION = "production"
ALIASES = st.sampled_from((PRODUCTION, "candidate"))
PEOPLE = st.sampled_from(("ana", "bo"))
GATE = Gate(metric="quality", comparison="at_least", threshold=1)
POLICIES = st.sampled_from(
    (None, AliasPolicy(gates=(GATE,)), AliasPolicy(approval=True), AliasPolicy(protected=True, gates=(GATE,)))
)
ROLLOUTS = st.sampled_from(
    (
        Rollout(deadline_seconds=100, bake_seconds=30),
        Rollout(
            strategy="canary", steps=(50, 100), step_seconds=0, least_requests=1, deadline_seconds=100, bake_seconds=30
        ),
    )
)
REFUSALS = (ChangeRefused, DeploymentRefused, StateRefused, Problem)


class Lives(RuleBasedStateMachine):
    """A registry in memory. Each rule is one transaction, what a driver shows, or time that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.domain, self.rows, self.log = RegistryDomain(), dict[Ref, AggregateRow](), list[Event]()
        self.now, self.ids, self.jobs = datetime(2030, 1, 1, tzinfo=UTC), 0, 0
        self.broken = dict[str, tuple[str, datetime]]()
        """Versions that cannot be served: the reason, and since when."""
        self.pages = [0]
        """Numbers of the aliases' changes that people have on their screens."""
        self.given_up = set[int]()

    @initialize(rollout=ROLLOUTS)
    def a_version_serves_and_another_one_is_there(self, rollout: Rollout) -> None:
        for _ in range(2):
            self.a_job_registers(quality=1, alias=PRODUCTION)
        self.wants("1.0.0", rollout, None)
        self.the_reconciler_looks(good=True, seconds=0)

    @property
    def model(self) -> ModelState:
        state = self.row(MODEL)
        assert isinstance(state, ModelState)
        return state

    @property
    def deployment(self) -> DeploymentState:
        state = self.row(SUPPORT)
        assert isinstance(state, DeploymentState)
        return state

    @property
    def versions(self) -> dict[str, RegistrationState]:
        states = (row.state for row in self.rows.values())
        return {one.registered.version: one for one in states if isinstance(one, RegistrationState) and one.registered}

    def row(self, ref: Ref) -> State:
        return self.rows.setdefault(ref, AggregateRow.absent(self.domain, ref)).state

    def unit(self, *refs: Ref) -> UnitOfWork:
        for ref in refs:
            self.row(ref)
        return UnitOfWork(self.domain, self.rows, self.now, self.new_id)

    def new_id(self) -> str:
        self.ids += 1
        return f"id-{self.ids}"

    def attempt(self, decide: Callable[[], Decided | Decision | None], *refs: Ref) -> None:
        """Decide in one transaction; a refusal changes nothing."""
        before, unit = self.live(), self.unit(*refs)
        try:
            decided = decide()
        except REFUSALS:
            assert self.live() == before
            return
        decisions = decided.decisions if isinstance(decided, Decided) else (decided,) if decided else ()
        aliases = self.model.aliases
        for decision in decisions:
            unit.apply(decision)
        if isinstance(decided, Decided) and decided.refused:
            assert self.model.aliases == aliases
        self.log += unit.emitted
        self.given_up |= {one.data.generation for one in unit.emitted if isinstance(one.data, DeploymentRolledBack)}

    def live(self) -> dict[Ref, State]:
        return {ref: row.state for ref, row in self.rows.items() if row.state != type(row.state)()}

    # what people and jobs do with versions and aliases

    @precondition(lambda self: self.jobs < 5)
    @rule(quality=st.integers(0, 2), alias=st.none() | ALIASES)
    def a_job_registers(self, quality: int, alias: str | None) -> None:
        self.jobs += 1
        lineage = a_lineage(f"job-{self.jobs}")
        asked = step_request(lineage.job_id, "register")
        states = self.unit(*rows_of(asked, "router", alias)).states
        made = wanted(lineage).model_copy(update={"metrics": {"quality": float(quality)}})
        more = further_rows(asked, "router", alias, states)
        self.attempt(lambda: Decided(tuple(register(asked, "router", alias, made, states)[1])), *more)

    @rule()
    def somebody_looks(self) -> None:
        self.pages.append(self.model.aliases_at)

    @precondition(lambda self: self.versions)
    @rule(
        data=st.data(),
        alias=ALIASES,
        by=PEOPLE,
        accepts=st.booleans(),
        what=st.sampled_from(("promote", "promote", "rule", "rule", "back", "remove")),
    )
    def somebody_changes_an_alias(self, data: st.DataObject, alias: str, by: str, accepts: bool, what: str) -> None:
        page = data.draw(st.none() | st.just(self.model.aliases_at) | st.sampled_from(self.pages[-3:]))
        change, at = Change(self.new_id(), by, "because"), self.model.aliases_at

        def decided() -> Decided | Decision | None:
            refuse_stale(self.model, "router", alias, None if page is None else f'"{page}"', pinned=False)
            assert page in (None, at), "somebody who saw another state changed the alias"
            if what == "rule":
                return set_policy("router", alias, data.draw(POLICIES), self.model, change)
            if what == "remove":
                return remove("router", alias, self.model, change)
            states = self.unit(MODEL).states
            if what == "back":
                version = earlier_version(alias, None, self.model)
                return rollback(self.wish(alias, version, change, accepts), states, self.now)
            version = data.draw(st.sampled_from(sorted(self.versions)))
            return promotion(self.wish(alias, version, change, accepts), states)

        self.attempt(decided, MODEL, move_ref(change.id), *rows_needed(alias, change.id, self.model))

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), by=PEOPLE, approves=st.booleans())
    def somebody_answers(self, data: st.DataObject, by: str, approves: bool) -> None:
        alias = data.draw(st.sampled_from(sorted(self.model.requests)))
        change, asked = Change(self.new_id(), by, "because"), self.model.requests[alias]

        def decided() -> Decided | Decision:
            waiting = waiting_for(alias, asked.id, self.model)
            if not approves:
                return decline("router", waiting, alias, change)
            return approval(self.wish(alias, waiting.version, change, accepts=False), waiting.id, self.unit(MODEL).states)

        refs = (MODEL, move_ref(change.id), request_ref(asked.id))
        self.attempt(decided, *refs, *rows_needed(alias, change.id, self.model))

    def wish(self, alias: str, version: str, change: Change, accepts: bool) -> Wish:
        made = self.versions[version].registered
        assert made is not None
        return Wish(alias, made, change, accepts, accepts)

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), state=st.sampled_from((LIVE, LIVE, DEPRECATED, ARCHIVED, DELETED)))
    def somebody_changes_the_state_of_a_version(self, data: st.DataObject, state: str) -> None:
        row = self.versions[data.draw(st.sampled_from(sorted(self.versions)))]
        assert row.registered is not None
        lineage, used = row.registered.lineage, row.registered.version in self.deployed()
        users = ("deployment support",) if used else ()
        self.attempt(
            lambda: change_state(row, self.model, state, by="ana", reason="because", users=users),
            MODEL, registration_ref(lineage.job_id, lineage.step),
        )  # fmt: skip

    @rule()
    def retention_removes_files(self) -> None:
        for row in self.versions.values():
            assert row.registered is not None
            lineage = row.registered.lineage
            refs = (MODEL, registration_ref(lineage.job_id, lineage.step))
            self.attempt(lambda row=row: remove_files(row, self.now), *refs)  # type: ignore[misc]

    def deployed(self) -> set[str]:
        """The versions that a deployment serves or may come to serve, as the query about them says."""
        state = self.deployment
        wishes = (*state.slots(self.now), state.wish) if state.open else ()
        return {wish.version for wish in wishes if wish is not None}

    # what becomes of the deployment

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), rollout=ROLLOUTS)
    def somebody_deploys(self, data: st.DataObject, rollout: Rollout) -> None:
        names = {alias: version for alias, version in self.model.aliases.items() if alias == PRODUCTION}
        name = data.draw(st.sampled_from([*names, *sorted(self.versions)]))
        self.wants(names.get(name, name), rollout, PRODUCTION if name in names else None)

    @precondition(lambda self: self.deployment.open and self.deployment.wish and self.deployment.wish.follow)
    @rule()
    def the_alias_is_followed(self) -> None:
        last, now = self.deployment.wish, self.model.aliases.get(PRODUCTION)
        assert last is not None
        if now not in (None, last.version):
            self.wants(str(now), last.rollout, PRODUCTION)

    def wants(self, version: str, rollout: Rollout, alias: str | None) -> None:
        if self.versions[version].state not in OUT_OF_USE:
            asked = wish(version, rollout=rollout, alias=alias, follow=alias is not None)
            self.attempt(lambda: request(self.deployment, asked), SUPPORT, MODEL)

    @precondition(lambda self: self.deployment.wish)
    @rule(what=st.sampled_from(("retry", "retry", "advance", "advance", "roll back", "roll back", "retire")))
    def somebody_changes_the_deployment(self, what: str) -> None:
        change: dict[str, Callable[[], Decision]] = {
            "retry": lambda: retry(self.deployment, "ana", "r"), "advance": lambda: advance(self.deployment, "ana", "r"),
            "roll back": lambda: roll_back(self.deployment, "ana", "r", self.now), "retire": lambda: retire(self.deployment, "ana", "r"),
        }  # fmt: skip
        self.attempt(change[what], SUPPORT)

    @precondition(lambda self: self.deployment.open)
    @rule(good=st.booleans(), seconds=st.sampled_from((0, 1, 1, GRACE_SECONDS, 40, 120)))
    def the_reconciler_looks(self, good: bool, seconds: float) -> None:
        """Callers of a canary got answers, or none of them did."""
        self.now += timedelta(seconds=seconds)
        traffic = Traffic(9, 0, 0) if good else Traffic(9, 9, 0)
        self.attempt(lambda: self.domain.decide(SUPPORT, self.unit(SUPPORT).states, self.now), SUPPORT)
        slots = {slot_of(one): self.seen(one) for one in self.deployment.slots(self.now)}
        self.attempt(lambda: observed(self.deployment, slots, self.now, Measured(traffic)), SUPPORT)

    def seen(self, wish: DeploymentRequested) -> Seen:
        if wish.version not in self.broken:
            return serving(wish)
        reason, since = self.broken[wish.version]
        return NOWHERE if reason == "gone" else failing(reason, (self.now - since).total_seconds())

    @precondition(lambda self: self.deployed())
    @rule(data=st.data(), reason=st.sampled_from(("gone", "Unloadable", "NotAnswering")))
    def a_version_breaks(self, data: st.DataObject, reason: str) -> None:
        self.broken[data.draw(st.sampled_from(sorted(self.deployed())))] = reason, self.now

    @precondition(lambda self: self.broken)
    @rule(data=st.data())
    def a_version_is_repaired(self, data: st.DataObject) -> None:
        del self.broken[data.draw(st.sampled_from(sorted(self.broken)))]

    @precondition(lambda self: self.deployment.target)
    @rule()
    def what_rolls_out_gets_on(self) -> None:
        self.the_reconciler_looks(good=True, seconds=1)

    @rule()
    def the_registry_is_rebuilt(self) -> None:
        rows = dict[Ref, AggregateRow]()
        for event in self.log:
            for ref in self.domain.touches(event):
                row = rows.setdefault(ref, AggregateRow.absent(self.domain, ref))
                row.fold(self.domain, ref, event, None)
        assert {ref: row.state for ref, row in rows.items()} == self.live()

    def teardown(self) -> None:
        self.the_registry_is_rebuilt()

    # what holds at any moment

    @invariant()
    def no_alias_names_or_returns_to_what_is_gone(self) -> None:
        usable = {version for version, row in self.versions.items() if row.state not in OUT_OF_USE}
        assert set(self.model.aliases.values()) <= usable
        assert {version for earlier in self.model.earlier.values() for version in earlier} <= usable
        assert {waiting.version for waiting in self.model.requests.values()} <= usable

    @invariant()
    def callers_are_led_to_what_is_wanted_and_was_not_given_up(self) -> None:
        state = self.deployment
        ready = {slot_of(one): self.seen(one) for one in state.slots(self.now)}
        addresses = {
            slot: {"served": seen.served, "sha256": seen.sha256, "address": slot, "headers": (), "called": ""}
            for slot, seen in ready.items()
            if seen.state == "ready"
        }
        row = ("support", state.model_dump_json(), self.now, json.dumps(self.model.aliases), json.dumps(addresses))
        table = RoutingTable.of(iter([row] if state.open else []))
        led = [*table.deployments.get("support", ()), *(canary.server for canary in table.canaries.values())]
        assert not {server.generation for server in led} & self.given_up
        assert not {server.served.partition("@")[2] for server in led} & self.out_of_use()
        known = (state.active, state.returns_to(self.now))
        assert bool(table.deployments.get("support")) == any(one and slot_of(one) in addresses for one in known)

    def out_of_use(self) -> set[str]:
        return {version for version, row in self.versions.items() if row.state in OUT_OF_USE}

    @invariant()
    def only_what_stays_deleted_loses_its_files(self) -> None:
        assert all(row.state == DELETED for row in self.versions.values() if row.files_removed_at)

    @invariant()
    def one_generation_rolls_out_and_it_is_the_latest_wish(self) -> None:
        state = self.deployment
        assert state.target in (None, state.wish)
        generations = [one.generation for one in (state.warm, state.active, state.target) if one is not None]
        assert len(set(generations)) == len(generations)
        assert not set(generations) & self.given_up
        assert (state.percent is None) == (state.step_since is None)

    @invariant()
    def numbers_grow(self) -> None:
        told = [event.data for event in self.log]
        made = [one.version for one in told if isinstance(one, ModelRegistered)]
        assert made == sorted(set(made), key=Version.parse)
        wishes = [one.generation for one in told if isinstance(one, DeploymentRequested)]
        assert wishes == list(range(1, len(wishes) + 1))
        for subject, count in Counter(event.subject for event in self.log).items():
            assert [one.sequence for one in self.log if one.subject == subject] == list(range(1, count + 1))

    @invariant()
    def what_is_on_the_screen_of_who_looks_now_is_never_stale(self) -> None:
        refuse_stale(self.model, "router", PRODUCTION, etag(self.model), pinned=False)
        moves = [event.sequence for event in self.log if isinstance(event.data, AliasMoved)]
        assert self.model.aliases_at >= max((one for one in moves if one is not None), default=0)


def test_no_race_leads_a_caller_or_an_alias_to_what_is_gone() -> None:
    few = settings(
        max_examples=examples(100), stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Lives, settings=few)
