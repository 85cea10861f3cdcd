"""Jobs and models to read, told to the domains as a log would, and put into the services' tables as a replay does."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

from schemas.artifacts import ArtifactRef
from schemas.envelope import Event
from schemas.generate.examples import REQUEST
from schemas.jobs import StepCompleted, StepRequested, StepResult, StepStarted
from schemas.models import ModelRegistered
from schemas.progress import StepProgressed
from schemas.requests import JobRequest, JobRequested
from schemas.steps import EXECUTOR_OF, OUTPUTS_OF, Policy, RegisterSettings
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Decision, Domain, Ref
from services.chassis.kernel.records import Logged
from services.chassis.kernel.tables import PROJECTION
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.kernel.transaction.writing import copy_rows
from services.orchestrator.domain.job import JobDomain, job_ref
from services.orchestrator.domain.state import JobState
from services.orchestrator.effects import JobEffects
from services.registry.domain.aliases import Change, Target, promote
from services.registry.domain.lineage import Artifact, lineage_of, metrics_of
from services.registry.domain.models import RegistryDomain
from services.registry.domain.state import ModelState, model_ref, move_of_step, move_ref, registration_ref

_START = datetime(2026, 11, 2, tzinfo=UTC)
_METRICS = {"exact_match": 0.91, "valid_json": 1.0, "loss": 0.4123, "rows": 240.0}
_FACTS = {"base_model_sha256": "b" * 64, "dataset_sha256": "d" * 64}


def _unit(domain: Domain, *refs: Ref, now: datetime) -> UnitOfWork:
    numbers = count(1)
    return UnitOfWork(
        domain, {ref: AggregateRow.absent(domain, ref) for ref in refs}, now, lambda: f"{refs[0].key}-{next(numbers)}"
    )


def _artifact(digit: str) -> ArtifactRef:
    return ArtifactRef(uri=f"/var/neuroweaver/artifacts/{digit * 64}", sha256=digit * 64, size=9_803_264)


def _job(number: int) -> tuple[UnitOfWork, list[Event]]:
    """Return a completed job and its progress."""
    job_id, now = f"job-{number:06}", _START + timedelta(minutes=number)
    unit, offsets = _unit(JobDomain(Policy()), job_ref(job_id), now=now), count()
    progress: list[Event] = []

    def tell(event: Event) -> None:
        unit.fold(Incoming(event, Logged(now, "jobs", 0, next(offsets))))

    request = {**REQUEST, "job_id": job_id, "register_as": f"model-{number % 10}"}
    tell(outside_event("relaycore", JobRequested(job_id=job_id, request=request), correlation_id=job_id))
    done: set[str] = set()
    while wanted := [one for one in _asked(unit) if one.step not in done]:
        for asked in wanted:
            done.add(asked.step)
            named = {"job_id": job_id, "step": asked.step, "attempt": 1, "kind": asked.kind}
            executor = f"neuroweaver/{EXECUTOR_OF[asked.kind]}"
            facts = {"model": request["register_as"], "version": "1.0.0"} if asked.kind == "register" else _FACTS
            result = StepResult(
                inputs={name: ref.sha256 for name, ref in asked.inputs.items()},
                outputs={name: _artifact(f"{number + at:x}"[-1]) for at, name in enumerate(OUTPUTS_OF[asked.kind])},
                metrics=_METRICS, facts={name: str(value) for name, value in facts.items()},
            )  # fmt: skip
            told = {"done": 61, "of": 110, "loss": 0.62, "learning_rate": 0.0006, "tokens_per_second": 148.8}
            for data in (
                StepStarted.model_validate({**named, "worker": "trainer-0/4711"}),
                StepCompleted.model_validate({**named, "result": result}),
            ):
                tell(outside_event(executor, data, correlation_id=job_id))
            data_of_progress = StepProgressed.model_validate({**named, **told, "memory_bytes": 1_911_250_944})
            progress.append(outside_event(executor, data_of_progress, correlation_id=job_id))
    return unit, progress


def _asked(unit: UnitOfWork) -> Iterator[StepRequested]:
    return (event.data for event in unit.emitted if isinstance(event.data, StepRequested))


async def put_jobs(database_url: str, number: int) -> list[str]:
    """Put `number` jobs into the orchestrator's tables; returns their ids, oldest first."""
    engine, domain = store.connect(database_url), JobDomain(Policy())
    try:
        async with engine.begin() as connection:
            for at in range(number):
                unit, progress = _job(at)
                await copy_rows(connection, domain, unit.rows, PROJECTION)
                await JobEffects()(connection, progress, unit.states)
            await connection.exec_driver_sql("ANALYZE job, progress")
    finally:
        await engine.dispose()
    return [f"job-{at:06}" for at in range(number)]


async def put_models(database_url: str, number: int) -> None:
    """Put `number` versions of as many models, each with an alias, into the registry's tables."""
    engine, domain = store.connect(database_url), RegistryDomain()
    try:
        async with engine.begin() as connection:
            for at in range(number):
                await copy_rows(connection, domain, _version(domain, at).rows, PROJECTION)
            await connection.exec_driver_sql("ANALYZE model, registration")
    finally:
        await engine.dispose()


def _version(domain: RegistryDomain, number: int) -> UnitOfWork:
    job, _ = _job(number)
    state = job.rows[job_ref(f"job-{number:06}")].state
    assert isinstance(state, JobState)
    asked = next(one for one in _asked(job) if one.kind == "register")
    assert isinstance(asked.settings, RegisterSettings)
    name, recipe = f"model-{number:06}", JobRequest.model_validate(REQUEST).training.model_dump(mode="json")
    adapter = asked.inputs["adapter"]
    made = ModelRegistered(
        model=name, version="1.0.0", artifact=adapter, lineage=lineage_of(asked, asked.settings, recipe),
        metrics=metrics_of(Artifact("adapter", adapter), asked.results) or _METRICS,
    )  # fmt: skip
    ref = model_ref(name)
    change = Change(move_of_step(asked.job_id, asked.step), "relaycore", "")
    refs = (registration_ref(asked.job_id, asked.step), move_ref(change.id))
    unit = _unit(domain, ref, *refs, now=_START + timedelta(minutes=number))
    unit.apply(Decision(ref, name, made))
    model = unit.rows[ref].state
    assert isinstance(model, ModelState)
    unit.apply(promote(name, "candidate", Target("1.0.0"), model, change))
    return unit
