"""Live state equals replayed state, whatever the order in which requests, workers, people and the log itself take turns."""

import random
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.artifacts import ArtifactRef
from schemas.datasets import RowsErased, RowsRemoved
from schemas.deployments import Rollout
from schemas.envelope import Event, encode
from schemas.gates import AliasPolicy, Gate
from schemas.jobs import (
    JobCancelled,
    JobCompleted,
    JobControlled,
    JobFailed,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepFault,
    StepRequested,
    StepResult,
    StepStarted,
)
from schemas.models import AliasMoved, AliasPolicySet, Lineage, ModelPromoted, ModelRegistered, PromotionRequested
from schemas.steps import RegisterSettings
from schemas.topics import DATASETS, JOBS, MODELS, TOPIC_OF
from schemas.versions import ARCHIVED, DELETED, DEPRECATED, LIVE, OUT_OF_USE
from services.chassis.executor.attempts import AttemptState, decision
from services.chassis.kernel.aggregate import Ref, State
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.replay.row import RowFold
from services.registry.domain.aliases import Change, ChangeRefused, earlier_version, remove
from services.registry.domain.approving import decline, waiting_for
from services.registry.domain.datasets import DatasetState, dataset_ref
from services.registry.domain.deployments.analysis import Measured, Traffic
from services.registry.domain.deployments.deciding import (
    DeploymentRefused,
    advance,
    observed,
    request,
    retire,
    retry,
    roll_back,
    shadowed,
)
from services.registry.domain.deployments.judged import JudgementState, job_id_of, judgement_ref
from services.registry.domain.deployments.state import DeploymentState, deployment_ref, slot_of
from services.registry.domain.describing import describe
from services.registry.domain.erasing import erasure, erasure_ref, learnt_from_erased, removal
from services.registry.domain.models import RegistryDomain
from services.registry.domain.policies import set_policy
from services.registry.domain.promoting import Decided, Wish, approval, promotion, rollback, rows_needed
from services.registry.domain.registering import VersionRefused, further_rows, register, rows_of
from services.registry.domain.requests import APPROVED, DECLINED, SUPERSEDED, WAITING, PromotionRequestState
from services.registry.domain.state import ModelState, RegistrationState, model_ref, move_ref, registration_ref
from services.registry.domain.version_states import StateRefused, change_state, remove_files
from tests.audit import record
from tests.deployments import failing, serving, wish
from tests.explored import examples
from tests.steps import an_event, cancel
from tests.steps import request as step_request

DEPLOYMENTS = ("one", "two")
ROLLOUTS = (
    Rollout(deadline_seconds=5, bake_seconds=5),
    Rollout(strategy="canary", steps=(50, 100), step_seconds=0, least_requests=1, deadline_seconds=50),
)
MODEL_NAMES, JOBS_IN_ALL, ATTEMPTS, ALIASES = ("a", "b"), 5, 2, ("production", "candidate")
POLICIES = (
    None,
    AliasPolicy(protected=True),
    AliasPolicy(gates=(Gate(metric="quality", comparison="at_least", threshold=2),)),
    AliasPolicy(gates=(Gate(metric="quality", comparison="at_least", worse_by=0),), rollback_days=0),
    AliasPolicy(approval=True),
    AliasPolicy(approval=True, gates=(Gate(metric="quality", comparison="at_least", threshold=2),)),
)
PEOPLE = ("ana", "bo")
OUTCOMES = ("StepCompleted", "StepFailed", "StepCancelled")


class World:
    """One registry with its rows, its outbox and the log; every step is one transaction or one record."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.domain, self.rows = chance, RegistryDomain(), dict[Ref, AggregateRow]()
        self.log: dict[str, list[Event]] = {JOBS.name: [], MODELS.name: [], DATASETS.name: []}
        self.read = Counter[str]()
        self.outbox: list[Event] = []
        self.working: dict[Ref, Event] = {}
        self.ids, self.seconds = count(), count()

    def unit(self, *refs: Ref) -> UnitOfWork:
        for ref in refs:
            self.rows.setdefault(ref, AggregateRow.absent(self.domain, ref))
        now = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self.seconds))
        return UnitOfWork(self.domain, self.rows, now, lambda: f"own-{next(self.ids)}")

    def step(self) -> None:
        turn = self.chance.choice(
            (
                self.ask,
                self.chance.choice((self.give_up, self.end)),
                self.relay,
                self.relay,
                self.consume,
                self.consume,
                self.work,
                self.move,
                self.answer,
                self.describe,
                self.prepare,
                self.deploy,
                self.deploy,
                self.chance.choice((self.shadow, self.judge)),
                self.chance.choice((self.change_state, self.change_state, self.remove)),
                self.erase,
            )
        )
        turn()

    def ask(self) -> None:
        """The orchestrator asks for an attempt, each once."""
        job, attempt = f"job-{self.chance.randrange(JOBS_IN_ALL)}", self.chance.randint(1, ATTEMPTS)
        model = MODEL_NAMES[int(job[-1]) % 2]
        asked = step_request(
            job, "register", attempt, kind="register",
            settings=RegisterSettings(base_model="base", model=model, version=self.chance.choice((None, None, None, "0.7.0"))),
            inputs={"adapter": ArtifactRef(uri="/a", sha256="a" * 64, size=1)},
        )  # fmt: skip
        if (job, attempt) not in (
            (event.data.job_id, event.data.attempt)
            for event in self.log[JOBS.name]
            if isinstance(event.data, StepRequested)
        ):
            self.log[JOBS.name].append(an_event(asked, seconds=next(self.seconds)))

    def prepare(self) -> None:
        """A trainer stored rows of one of two data sets, under one of two names, or learnt from them; its clock may be behind."""
        facts = {"dataset_name": self.chance.choice("ab"), "snapshot_sha256": self.chance.choice("12") * 64}
        artifact = ArtifactRef(uri="/a", sha256="a" * 64, size=1)
        stored = StepResult(outputs={"dataset": artifact}, facts={**facts, "dataset_sha256": "d" * 64})
        learnt = StepResult(outputs={"rows_used": artifact}, inputs={"dataset": "a" * 64})
        kind, result = self.chance.choice((("prepare", stored), ("train", learnt)))
        job = f"job-{self.chance.randrange(JOBS_IN_ALL)}"
        told = StepCompleted(job_id=job, step=kind, attempt=1, kind=kind, result=result)
        late = next(self.seconds) - self.chance.randrange(60)
        self.log[JOBS.name].append(an_event(told, "neuroweaver/trainer", seconds=late, subject=job))

    def give_up(self) -> None:
        """The orchestrator closes an attempt that it asked for, each once."""
        asked = [event.data for event in self.log[JOBS.name] if isinstance(event.data, StepRequested)]
        if asked and self.chance.random() < 0.3:
            closing = cancel(self.chance.choice(asked))
            if closing not in (event.data for event in self.log[JOBS.name]):
                self.log[JOBS.name].append(an_event(closing, seconds=next(self.seconds)))

    def relay(self) -> None:
        """The oldest event of the outbox goes to its topic."""
        if self.outbox:
            event = self.outbox.pop(0)
            self.log[TOPIC_OF[event.type].name].append(event)

    def consume(self) -> None:
        """The next record of a topic, own ones included, is applied."""
        topic = self.chance.choice(list(self.log))
        if self.read[topic] == len(self.log[topic]):
            return
        event = self.log[topic][self.read[topic]]
        unit = self.unit(*self.domain.touches(event))
        unit.fold(Incoming(event, Logged(event.time, topic, 0, self.read[topic])))
        self.read[topic] += 1
        self.outbox += unit.emitted

    def work(self) -> None:
        """A worker begins an open attempt, or concludes one: the same transactions as the chassis' worker makes."""
        waiting = [ref for ref, row in self.rows.items() if isinstance(row.state, AttemptState) and is_open(row.state)]
        if not waiting:
            return
        ref = self.chance.choice(waiting)
        state = self.rows[ref].state
        assert isinstance(state, AttemptState)
        assert state.requested is not None
        asked = state.requested
        assert isinstance(asked.settings, RegisterSettings)
        model = asked.settings.model
        unit = self.unit(ref, *rows_of(asked, model, asked.settings.alias))
        if state.cancel_requested:
            unit.apply(decision(asked, StepCancelled))
        elif ref not in self.working or self.chance.random() < 0.3:
            self.working[ref] = unit.apply(decision(asked, StepStarted, worker="w"))
        else:
            unit = self.unit(ref, *further_rows(asked, model, asked.settings.alias, unit.states))
            try:
                result, decisions = register(asked, model, asked.settings.alias, wanted(asked, model), unit.states)
            except VersionRefused as refused:
                fault = StepFault(cause="user", message=str(refused), reasons=(refused.reason,))
                unit.apply(decision(asked, StepFailed, fault=fault), self.working[ref])
                self.outbox += unit.emitted
                return
            for made in decisions:
                unit.apply(made, self.working[ref])
            unit.apply(decision(asked, StepCompleted, result=result), self.working[ref])
        self.outbox += unit.emitted

    def move(self) -> None:
        """A person moves an alias, takes it back, removes it, or sets the rules by which it moves."""
        ref, alias = model_ref(self.chance.choice(MODEL_NAMES)), self.chance.choice(ALIASES)
        change = Change(f"move-{next(self.ids)}", self.chance.choice(PEOPLE), "because")
        unit = self.unit(ref, move_ref(change.id))
        state = self.rows[ref].state
        assert isinstance(state, ModelState)
        unit = self.unit(ref, *rows_needed(alias, change.id, state))
        drawn = self.chance.random()
        with suppress(ChangeRefused):
            if drawn < 0.3:
                ruled = set_policy(ref.key, alias, self.chance.choice(POLICIES), state, change)
                self.take(unit, Decided(() if ruled is None else (ruled,)))
            elif drawn < 0.4:
                self.take(unit, Decided((remove(ref.key, alias, state, change),)))
            elif drawn < 0.6:
                wish = self.wish(ref, alias, earlier_version(alias, None, state), change)
                self.take(unit, rollback(wish, unit.states, unit.now))
            elif state.newest:
                wish = self.wish(ref, alias, self.chance.choice(state.newest), change)
                self.take(unit, promotion(wish, unit.states))
        self.outbox += unit.emitted

    def answer(self) -> None:
        """A person approves or declines a request that they know of, which may wait no more."""
        known = [
            row.state
            for row in self.rows.values()
            if isinstance(row.state, PromotionRequestState) and row.state.asked is not None
        ]
        if not known:
            return
        state = self.chance.choice(known)
        assert state.asked is not None
        assert state.model is not None
        ref, alias = model_ref(state.model), state.asked.alias
        change = Change(f"move-{next(self.ids)}", self.chance.choice(PEOPLE), "because")
        unit = self.unit(ref, move_ref(change.id))
        model = self.rows[ref].state
        assert isinstance(model, ModelState)
        unit = self.unit(ref, *rows_needed(alias, change.id, model))
        with suppress(ChangeRefused):
            waiting = waiting_for(alias, state.asked.id, model)
            if self.chance.random() < 0.4:
                self.take(unit, Decided((decline(ref.key, waiting, alias, change),)))
            else:
                self.take(unit, approval(self.wish(ref, alias, waiting.version, change), waiting.id, unit.states))
        self.outbox += unit.emitted

    def describe(self) -> None:
        """A person describes a version."""
        made = [
            row.state for row in self.rows.values() if isinstance(row.state, RegistrationState) and row.state.registered
        ]
        if made:
            state = self.chance.choice(made)
            assert state.registered is not None
            told = describe(
                state, self.chance.choice((None, "good", "")), {"team": self.chance.choice(("a", "b", None))}, "a person"
            )
            if told is not None:
                lineage = state.registered.lineage
                unit = self.unit(model_ref(state.registered.model), registration_ref(lineage.job_id, lineage.step))
                unit.apply(told)
                self.outbox += unit.emitted

    def deploy(self) -> None:
        """A person changes a deployment, a driver is observed, or time passes."""
        name = self.chance.choice(DEPLOYMENTS)
        unit = self.unit(deployment_ref(name))
        state = unit.states[deployment_ref(name)]
        assert isinstance(state, DeploymentState)
        slots = {
            slot_of(one): self.chance.choice((serving(one), serving(one), failing("Unloadable", 60)))
            for one in state.slots(unit.now)
        }
        wanted = wish(self.chance.choice(("1.0.0", "2.0.0")), deployment=name, rollout=self.chance.choice(ROLLOUTS))
        got = Measured(self.chance.choice((Traffic(9, 0, 0), Traffic(9, 9, 0))))
        turns = (
            lambda: request(state, wanted), lambda: observed(state, slots, unit.now), lambda: observed(state, slots, unit.now, got),
            lambda: advance(state, "a person", "r"),
            lambda: self.domain.decide(deployment_ref(name), unit.states, unit.now), lambda: retry(state, "a person", "r"),
            lambda: roll_back(state, "a person", "r", unit.now), lambda: retire(state, "a person", ""),
        )  # fmt: skip
        with suppress(DeploymentRefused):
            if (decided := self.chance.choice(turns)()) is not None:
                unit.apply(decided)
        self.outbox += unit.emitted

    def shadow(self) -> None:
        """Answers of a canary are given to a judge."""
        name, job = self.chance.choice(DEPLOYMENTS), job_id_of("one", f"01980c5f-0000-7000-8000-{next(self.ids):012}")
        unit = self.unit(deployment_ref(name), judgement_ref(job))
        state = unit.states[deployment_ref(name)]
        assert isinstance(state, DeploymentState)
        pairs = ArtifactRef(uri="/p", sha256="e" * 64, size=1)
        if state.target and (told := shadowed(state, state.target.generation, state.percent or 0.0, pairs, 5, job)):
            unit.apply(told)
            self.outbox += unit.emitted

    def judge(self) -> None:
        """The feedback service says what a judge found, maybe twice, or the orchestrator that the job failed."""
        asked = [row.state for row in self.rows.values() if isinstance(row.state, JudgementState) and row.state.asked]
        if asked:
            state = self.chance.choice(asked)
            assert state.asked is not None
            job, late = state.asked.judgement, next(self.seconds) - self.chance.randrange(60)
            counts = ("second_better", "first_better", "ties", "unjudged")
            metrics: dict[str, float | None] = {name: float(self.chance.randrange(9)) for name in counts}
            result = StepResult(metrics=metrics, facts={"judge": "told"})
            completed = StepCompleted(job_id=job, step="compare", attempt=1, kind="compare", result=result)
            failed = JobFailed(job_id=job, step=None, fault=StepFault(cause="hung", message="late"))
            told = self.chance.choice((completed, completed, failed))
            number = None if told is completed else next(self.seconds)
            self.log[JOBS.name].append(an_event(told, "neuroweaver/feedback", seconds=late, sequence=number, subject=job))

    def change_state(self) -> None:
        """A person deprecates or archives a version, or makes it live again."""
        made = [(ref, row.state) for ref, row in self.rows.items() if isinstance(row.state, RegistrationState)]
        known = [(ref, state) for ref, state in made if state.registered]
        if not known:
            return
        ref, state = self.chance.choice(known)
        assert state.registered is not None
        owner = model_ref(state.registered.model)
        model = self.rows[owner].state
        assert isinstance(model, ModelState)
        with suppress(StateRefused):
            wanted_state = self.chance.choice((LIVE, DEPRECATED, ARCHIVED, DELETED))
            changed = change_state(state, model, wanted_state, by="a person", reason="because", users=())
            if changed is not None:
                unit = self.unit(owner, ref)
                unit.apply(changed)
                self.outbox += unit.emitted

    def remove(self) -> None:
        """Retention removes the files of a version that was deleted before now."""
        made = [(ref, row.state) for ref, row in self.rows.items() if isinstance(row.state, RegistrationState)]
        if deleted := [(ref, state) for ref, state in made if state.registered and state.deleted_at]:
            ref, state = self.chance.choice(deleted)
            assert state.registered is not None
            unit = self.unit(model_ref(state.registered.model), ref)
            if told := remove_files(state, unit.now):
                unit.apply(told)
                self.outbox += unit.emitted

    def end(self) -> None:
        """The orchestrator ends a job, or begins it again; its numbers have gaps here, as its other events are no subject."""
        job = f"job-{self.chance.randrange(JOBS_IN_ALL)}"
        failed = JobFailed(job_id=job, step="s", fault=StepFault(cause="user", message="m"))
        retried = JobControlled(job_id=job, control="retry", request_id="r")
        told = self.chance.choice(
            (JobCompleted(job_id=job, model=None, version=None), failed, JobCancelled(job_id=job, reason="r"), retried)
        )
        number = next(self.seconds)
        self.log[JOBS.name].append(an_event(told, seconds=number, sequence=number, subject=job))

    def erase(self) -> None:
        """A person erases rows of a data set, the remover tells that their bytes are gone, or that a version had learnt from them."""
        data = [row.state for row in self.rows.values() if isinstance(row.state, DatasetState) and row.state.registered]
        if not data:
            return
        state = self.chance.choice(data)
        made = state.registered
        assert made is not None
        about = {"dataset": made.dataset, "sha256": made.sha256}
        told = RowsErased(**about, erasure=f"erasure-{next(self.ids)}", rows=("e" * 64,), by="a person", reason="r")
        if not state.erasures or self.chance.random() < 0.3:
            unit = self.unit(dataset_ref(told), erasure_ref(told))
            unit.apply(erasure(told))
        elif self.chance.random() < 0.5:
            unit = self.unit(dataset_ref(told))
            done = RowsRemoved(**about, erasures=state.erasures, rows=1, artifact=made.artifact)
            if (decided := removal(state, done)) is not None:
                unit.apply(decided)
        else:
            known = [
                row.state for row in self.rows.values() if isinstance(row.state, RegistrationState) and row.state.registered
            ]
            if not known:
                return
            version = self.chance.choice(known)
            assert version.registered is not None
            lineage = version.registered.lineage
            unit = self.unit(model_ref(version.registered.model), registration_ref(lineage.job_id, lineage.step))
            if (decided := learnt_from_erased(version, told, self.chance.randint(1, 3), None)) is not None:
                unit.apply(decided)
        self.outbox += unit.emitted

    def archived(self) -> set[tuple[str, str]]:
        rows = (row.state for row in self.rows.values())
        made = [row for row in rows if isinstance(row, RegistrationState) and row.state in OUT_OF_USE]
        return {(row.registered.model, row.registered.version) for row in made if row.registered}

    def wish(self, model: Ref, alias: str, version: str, change: Change) -> Wish:
        made = (row.state.registered for row in self.rows.values() if isinstance(row.state, RegistrationState))
        found = next(one for one in made if one and (one.model, one.version) == (model.key, version))
        return Wish(alias, found, change, self.chance.random() < 0.5, self.chance.random() < 0.5)

    def take(self, unit: UnitOfWork, decided: Decided) -> None:
        for each in decided.decisions:
            unit.apply(each)

    def settle(self) -> None:
        """Everything decided is in the log and was read back."""
        while self.outbox:
            self.relay()
        while any(self.read[topic] < len(events) for topic, events in self.log.items()):
            self.consume()
            while self.outbox:
                self.relay()

    def replayed(self) -> dict[Ref, State]:
        """The fold of the log alone, topics interleaved at random: what a rebuild does."""
        rows: dict[Ref, AggregateRow] = {}
        left = {topic: list(events) for topic, events in self.log.items()}
        while any(left.values()):
            event = left[self.chance.choice([topic for topic, events in left.items() if events])].pop(0)
            for ref in self.domain.touches(event):
                row = rows.setdefault(ref, AggregateRow.absent(self.domain, ref))
                row.state = self.domain.evolve(ref, row.state, event, None)
        return {ref: row.state for ref, row in rows.items()}

    def folded_alone(self, ref: Ref) -> AggregateRow:
        """The row as its rebuild makes it: from the log alone, without the rows of others; some records are passed twice."""
        fold = RowFold(self.domain, ref)
        left = {topic: list(enumerate(events)) for topic, events in self.log.items()}
        while any(left.values()):
            topic = self.chance.choice([topic for topic, events in left.items() if events])
            offset, event = left[topic].pop(0)
            value, headers = encode(event)
            for _ in range(self.chance.randint(1, 2)):
                fold.fold(event, record(value, *headers, topic=topic, offset=offset))
        return fold.row


def is_open(state: AttemptState) -> bool:
    return state.requested is not None and state.outcome is None


def wanted(asked: StepRequested, model: str) -> ModelRegistered:
    lineage = Lineage(
        job_id=asked.job_id, step=asked.step, requester="r", base_model="base", base_model_sha256=None,
        dataset_sha256="d", configuration={"job": asked.job_id}, results={"prepare": StepResult()},
    )  # fmt: skip
    assert isinstance(asked.settings, RegisterSettings)
    version = asked.settings.version or ""
    metrics: dict[str, float | None] = {"quality": float(asked.job_id[-1])}
    return ModelRegistered(model=model, version=version, artifact=asked.inputs["adapter"], lineage=lineage, metrics=metrics)


@settings(max_examples=examples(150))
@given(st.integers(0, 2**32), st.integers(10, 120))
def test_the_fold_of_the_log_is_the_live_state(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    for _ in range(steps):
        world.step()
    world.settle()
    live = {ref: row.state for ref, row in world.rows.items() if row.state != type(row.state)()}
    for _ in range(3):
        assert world.replayed() == live
    for ref in live:
        assert world.folded_alone(ref) == world.rows[ref], ref


@settings(max_examples=examples(150))
@given(st.integers(0, 2**32), st.integers(10, 120))
def test_a_version_is_given_once_an_attempt_ends_once_and_numbers_have_no_gap(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    for _ in range(steps):
        world.step()
    world.settle()
    numbers: dict[str, list[int | None]] = {}
    for event in (*world.log[JOBS.name], *world.log[MODELS.name], *world.log[DATASETS.name]):
        if event.source == world.domain.source:
            numbers.setdefault(event.subject, []).append(event.sequence)
    assert all(given == list(range(1, len(given) + 1)) for given in numbers.values())
    made = [event.data for event in world.log[MODELS.name] if isinstance(event.data, ModelRegistered)]
    assert max(Counter((data.model, data.version) for data in made).values(), default=1) == 1
    assert max(Counter(data.lineage.job_id for data in made).values(), default=1) == 1
    ours = (event for event in world.log[JOBS.name] if event.source == world.domain.source)
    ended = Counter(event.subject for event in ours if event.type in OUTCOMES)
    assert max(ended.values(), default=1) == 1
    states = [row.state for row in world.rows.values()]
    known = {
        (state.registered.model, state.registered.version)
        for state in states
        if isinstance(state, RegistrationState) and state.registered
    }
    sets = Counter(event.subject for event in world.log[DATASETS.name] if event.type == "DatasetRegistered")
    assert max(sets.values(), default=1) == 1
    moved = [event.data for event in world.log[MODELS.name] if isinstance(event.data, AliasMoved)]
    assert {(data.model, data.version) for data in moved} <= known


@settings(max_examples=examples(150))
@given(st.integers(0, 2**32), st.integers(10, 120))
def test_nothing_names_an_archived_version_nor_can_go_back_to_one_nor_waits_for_one(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    for _ in range(steps):
        world.step()
        models = {ref.key: row.state for ref, row in world.rows.items() if isinstance(row.state, ModelState)}
        named = {
            (name, version)
            for name, state in models.items()
            for version in (
                *state.aliases.values(),
                *(version for earlier in state.earlier.values() for version in earlier),
                *(one.version for one in state.requests.values()),
            )
        }
        assert not named & world.archived()


@settings(max_examples=examples(150))
@given(st.integers(0, 2**32), st.integers(10, 120))
def test_only_what_stays_deleted_loses_its_files(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    for _ in range(steps):
        world.step()
        rows = [row.state for row in world.rows.values() if isinstance(row.state, RegistrationState)]
        assert all(row.state == DELETED for row in rows if row.files_removed_at)


@settings(max_examples=examples(150))
@given(st.integers(0, 2**32), st.integers(10, 120))
def test_two_people_stand_behind_what_needed_approval_and_a_request_ends_once(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    for _ in range(steps):
        world.step()
        waiting = {
            (state.model, state.asked.alias, state.asked.id)
            for state in (row.state for row in world.rows.values())
            if isinstance(state, PromotionRequestState) and state.asked and state.outcome.status == WAITING
        }
        models = {ref.key: row.state for ref, row in world.rows.items() if isinstance(row.state, ModelState)}
        assert waiting == {(name, alias, one.id) for name, state in models.items() for alias, one in state.requests.items()}
        assert all(state.policy(alias).approval for state in models.values() for alias in state.requests)
    world.settle()
    policies: dict[tuple[str, str], AliasPolicy | None] = {}
    asked: dict[str, PromotionRequested] = {}
    for event in world.log[MODELS.name]:
        match event.data:
            case AliasPolicySet() as rules:
                policies[rules.model, rules.alias] = rules.policy
            case PromotionRequested() as request:
                asked[request.request] = request
            case ModelPromoted() as moved:
                policy = policies.get((moved.model, moved.alias))
                assert (moved.request is not None) is bool(policy and policy.approval)
                if moved.request is not None:
                    wanted_then = asked.pop(moved.request)
                    assert (wanted_then.version, wanted_then.by) == (moved.version, moved.by)
                    assert moved.approved_by != moved.by
    assert world.replayed() == {ref: row.state for ref, row in world.rows.items() if row.state != type(row.state)()}


def test_the_random_worlds_do_what_they_are_about() -> None:
    """Else the two tests above would prove nothing."""
    seen, ended, archived = Counter[str](), set[str](), set[tuple[str, str]]()
    for seed in range(60):
        world = World(random.Random(seed))
        for _ in range(300):
            world.step()
        world.settle()
        seen.update(event.type for events in world.log.values() for event in events)
        archived |= world.archived()
        states = (row.state for row in world.rows.values())
        ended |= {state.outcome.status for state in states if isinstance(state, PromotionRequestState) and state.asked}
    wanted_types = {
        "StepRequested.v2",
        "StepCancelRequested",
        "StepStarted",
        "StepCompleted",
        "StepCancelled",
        "StepFailed",
        "ModelRegistered",
        "DatasetRegistered",
    }
    moves = {
        "ModelPromoted",
        "ModelRolledBack",
        "AliasRemoved",
        "AliasRefused",
        "GatesChecked",
        "AliasPolicySet",
        "VersionDescribed",
        "PromotionRequested",
        "PromotionDeclined",
        "VersionStateChanged",
        "VersionFilesRemoved",
        "RowsErased",
        "RowsRemoved",
        "ErasedRowsLearnt",
    }
    deployments = {f"Deployment{what}" for what in ("Requested", "Advanced", "Ready", "Degraded", "RolledBack", "Retired")}
    assert wanted_types | moves | deployments <= set(seen)
    assert seen["StepCompleted"] > seen["ModelRegistered"]
    assert archived
    assert ended >= {WAITING, APPROVED, DECLINED, SUPERSEDED}
