"""What registering a step amounts to: given a model, when a step registers, then a number by one rule."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import ArtifactRef
from schemas.envelope import Event
from schemas.jobs import StepRequested, StepResult
from schemas.models import Lineage, ModelPromoted, ModelRegistered
from services.chassis.kernel.aggregate import Ref, State
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.registry.domain.lineage import Artifact, metrics_of, parent_of, purpose_of
from services.registry.domain.models import (
    ModelState,
    OtherPurpose,
    RegistrationState,
    RegistryDomain,
    model_ref,
    register,
    registration_ref,
)
from services.registry.domain.versioning import Version, next_version
from tests.steps import an_event, request

ADAPTER = ArtifactRef(uri="/a", sha256="1" * 64, size=1)
MODEL = model_ref("router")


def a_lineage(job: str = "job-1", **changes: Any) -> Lineage:
    known = {
        "job_id": job, "step": "register", "requester": "r", "base_model": "base", "base_model_sha256": "b" * 64,
        "dataset_sha256": "d" * 64, "configuration": {"rank": 8}, "results": {},
    }  # fmt: skip
    return Lineage.model_validate({**known, **changes})


def wanted(lineage: Lineage) -> ModelRegistered:
    return ModelRegistered(
        model="router", version="", artifact=ADAPTER, lineage=lineage, metrics={}, purpose=purpose_of(lineage)
    )


class RegistryScenario:
    """A registry in memory: the real domain and the real unit of work."""

    def __init__(self) -> None:
        self.rows: dict[Ref, AggregateRow] = {}
        self.events: list[Event] = []
        self.ids = 0

    def unit(self, *refs: Ref) -> UnitOfWork:
        for ref in refs:
            self.rows.setdefault(ref, AggregateRow.absent(RegistryDomain(), ref))
        return UnitOfWork(RegistryDomain(), self.rows, datetime(2030, 1, 1, tzinfo=UTC), self.new_id)

    def new_id(self) -> str:
        self.ids += 1
        return f"own-{self.ids}"

    def register(self, lineage: Lineage, alias: str | None = "candidate") -> str:
        asked: StepRequested = request(lineage.job_id, "register")
        unit = self.unit(MODEL, registration_ref(lineage.job_id, "register"))
        result, decisions = register(asked, "router", alias, wanted(lineage), unit.states)
        self.events += [unit.apply(decision) for decision in decisions]
        return result.facts["version"]

    @property
    def model(self) -> ModelState:
        state: State = self.rows[MODEL].state
        assert isinstance(state, ModelState)
        return state


def test_the_first_version_is_1_0_0_and_the_alias_names_it() -> None:
    scenario = RegistryScenario()
    assert scenario.register(a_lineage()) == "1.0.0"
    assert [event.type for event in scenario.events] == ["ModelRegistered", "ModelPromoted"]
    assert [event.sequence for event in scenario.events] == [1, 2]
    assert scenario.model.aliases == {"candidate": "1.0.0"}


def test_a_reward_model_is_registered_as_one_and_never_under_a_model_that_writes_answers() -> None:
    judge = a_lineage(configuration={"method": "reward", "scores_answers": "true"})
    assert (purpose_of(judge), purpose_of(a_lineage())) == ("scores", "answers")
    scenario = RegistryScenario()
    scenario.register(judge)
    assert scenario.register(judge.model_copy(update={"job_id": "job-2"})) == "1.0.1"
    with pytest.raises(OtherPurpose) as raised:
        scenario.register(a_lineage("job-3"))
    assert raised.value.reason.message == "the versions of router are for scores, and this one is for answers"


def test_the_metrics_of_a_reward_model_are_those_on_held_out_pairs() -> None:
    figures = {"held_out_accuracy": 0.8, "loss": 0.1}
    trained = StepResult(outputs={"adapter": ADAPTER}, metrics=figures, facts={"scores_answers": "true"})
    assert metrics_of(Artifact("adapter", ADAPTER), {"train": trained}) == {"held_out_accuracy": 0.8}
    assert metrics_of(Artifact("adapter", ADAPTER), {"train": trained.model_copy(update={"facts": {}})}) == {}


def test_without_an_alias_nothing_is_promoted() -> None:
    scenario = RegistryScenario()
    scenario.register(a_lineage(), alias=None)
    assert scenario.model.aliases == {}
    assert [event.type for event in scenario.events] == ["ModelRegistered"]


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({}, "1.0.1"),
        ({"dataset_sha256": "e" * 64}, "1.1.0"),
        ({"configuration": {"rank": 16}}, "1.1.0"),
        ({"base_model_sha256": "c" * 64}, "2.0.0"),
        ({"base_model": "renamed"}, "1.0.1"),
        ({"base_model": "other", "base_model_sha256": None}, "2.0.0"),
    ],
)
def test_the_number_says_what_changed_since_the_version_before(changed: dict[str, Any], number: str) -> None:
    assert str(next_version(Version(1, 0, 0), a_lineage(), a_lineage("job-2", **changed))) == number


def test_the_same_step_of_the_same_job_gets_the_version_that_it_has() -> None:
    scenario = RegistryScenario()
    first = scenario.register(a_lineage())
    announced = len(scenario.events)
    assert scenario.register(a_lineage()) == first
    assert len(scenario.events) == announced


def test_an_alias_keeps_its_history() -> None:
    scenario = RegistryScenario()
    scenario.register(a_lineage("job-1"))
    scenario.register(a_lineage("job-2"))
    assert [(move.version, move.previous) for move in scenario.model.moves] == [("1.0.0", None), ("1.0.1", "1.0.0")]


def test_the_word_of_somebody_else_about_our_models_is_ignored() -> None:
    forged = an_event(ModelPromoted(model="router", alias="prod", version="9.9.9", previous=None), "neuroweaver/other")
    assert RegistryDomain().touches(forged) == ()


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c"])), min_size=1, max_size=12))
def test_a_replay_of_the_log_gives_the_live_state_and_versions_are_never_given_twice(asked: list[tuple[int, str]]) -> None:
    live = RegistryScenario()
    for job, data in asked:
        live.register(a_lineage(f"job-{job}", dataset_sha256=data * 64))
    domain, replayed = RegistryDomain(), RegistryScenario()
    for event in live.events:
        for ref in domain.touches(event):
            replayed.unit(ref)
            row = replayed.rows[ref]
            row.state = domain.evolve(ref, row.state, event, None)
    assert {ref: row.state for ref, row in replayed.rows.items()} == {
        ref: row.state for ref, row in live.rows.items() if row.state != RegistrationState()
    }
    assert len(set(live.model.versions)) == len({job for job, _ in asked})


def test_metrics_are_those_of_the_evaluations_of_this_adapter_and_of_their_scores() -> None:
    predictions, others, candidates = (ArtifactRef(uri="/p", sha256=sign * 64, size=1) for sign in "567")
    mine = {"adapter": ADAPTER.sha256}
    results = {
        "evaluate-base": StepResult(outputs={"predictions": others}, metrics={"exact_match": 0.0}),
        "score-base": StepResult(inputs={"predictions": others.sha256}, metrics={"judge": -1.0}),
        "sample": StepResult(inputs=mine, outputs={"candidates": candidates}, metrics={"prompts": 8.0}),
        "evaluate": StepResult(inputs=mine, outputs={"predictions": predictions}, metrics={"exact_match": 0.9}),
        "score": StepResult(inputs={"predictions": predictions.sha256}, metrics={"judge": 0.4}),
    }
    assert metrics_of(Artifact("adapter", ADAPTER), results) == {"exact_match": 0.9, "judge": 0.4}


def test_a_compressed_model_is_registered_with_its_measures_and_those_of_its_parent() -> None:
    model = ArtifactRef(uri="/m", sha256="8" * 64, size=1)
    mine, other = (ArtifactRef(uri="/p", sha256=sign * 64, size=1) for sign in "56")
    read = {"adapter": ADAPTER.sha256}
    results = {
        "train": StepResult(outputs={"adapter": ADAPTER}, metrics={"loss": 0.2}),
        "evaluate": StepResult(inputs=read, outputs={"predictions": other}, metrics={"loss": 0.4}),
        "merge": StepResult(
            inputs=read, outputs={"model": model}, metrics={"size_bytes": 5.0}, facts={"compression": "merge"}
        ),
        "evaluate-model": StepResult(inputs={"model": model.sha256}, outputs={"predictions": mine}, metrics={"loss": 0.5}),
        "evaluate-more": StepResult(
            inputs={"model": model.sha256, "adapter": "9" * 64}, outputs={"predictions": mine}, metrics={"loss": 0.1}
        ),
    }
    registered = Artifact("model", model)
    assert metrics_of(registered, results) == {"loss": 0.5, "size_bytes": 5.0}
    parent = parent_of(registered, results)
    assert parent == Artifact("adapter", ADAPTER)
    assert metrics_of(parent, results) == {"loss": 0.4}
    assert parent_of(parent, results) is None
    trained_whole = {**results, "merge": results["merge"].model_copy(update={"facts": {}})}
    assert parent_of(registered, trained_whole) is None
    assert metrics_of(registered, trained_whole) == {"loss": 0.5}


def test_a_model_says_the_aliases_of_each_version_in_the_order_of_their_letters() -> None:
    state = ModelState(aliases={"prod": "1.0.0", "candidate": "1.1.0", "Canary": "1.0.0", "old": "1.0.0"})
    kept = RegistryDomain().aggregates[MODEL.aggregate].values(state)
    assert json.loads(kept["named"]) == {"1.0.0": ["Canary", "old", "prod"], "1.1.0": ["candidate"]}
