"""What registering a step amounts to: given a model, when a step registers, then a number by one rule."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import ArtifactRef
from schemas.envelope import Event
from schemas.jobs import StepRequested, StepResult
from schemas.models import AliasRefused, Lineage, ModelPromoted, ModelRegistered
from services.chassis.kernel.aggregate import Decision, Ref, State
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.registry.domain.aliases import (
    ALIASES_AT_MOST,
    Change,
    ChangeRefused,
    Target,
    earlier_version,
    promote,
    remove,
    roll_back,
)
from services.registry.domain.describing import TAGS_AT_MOST, TooManyTags, describe
from services.registry.domain.lineage import Artifact, metrics_of, parent_of, purpose_of
from services.registry.domain.models import RegistryDomain
from services.registry.domain.registering import OtherPurpose, VersionRefused, register, rows_of
from services.registry.domain.state import (
    EARLIER,
    NEWEST,
    AliasMove,
    AliasMoveState,
    ModelState,
    RegistrationState,
    model_ref,
    move_ref,
    registration_ref,
)
from services.registry.domain.versioning import LINES, Version, next_version
from services.registry.views import VersionView
from tests.steps import an_event, request

ADAPTER = ArtifactRef(uri="/a", sha256="1" * 64, size=1)
MODEL = model_ref("router")


def a_lineage(job: str = "job-1", **changes: Any) -> Lineage:
    known = {
        "job_id": job, "step": "register", "requester": "r", "base_model": "base", "base_model_sha256": "b" * 64,
        "dataset_sha256": "d" * 64, "configuration": {"rank": 8}, "results": {},
    }  # fmt: skip
    return Lineage.model_validate({**known, **changes})


def wanted(lineage: Lineage, version: str = "") -> ModelRegistered:
    return ModelRegistered(
        model="router", version=version, artifact=ADAPTER, lineage=lineage, metrics={}, purpose=purpose_of(lineage)
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
        now = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.events))
        return UnitOfWork(RegistryDomain(), self.rows, now, self.new_id)

    def new_id(self) -> str:
        self.ids += 1
        return f"own-{self.ids}"

    def register(self, lineage: Lineage, alias: str | None = "candidate", version: str = "") -> str:
        asked: StepRequested = request(lineage.job_id, "register")
        unit = self.unit(*rows_of(asked, "router", alias))
        result, decisions = register(asked, "router", alias, wanted(lineage, version), unit.states)
        self.events += [unit.apply(decision) for decision in decisions]
        return result.facts["version"]

    def change(self, decide: Callable[[str, ModelState, Change], Decision]) -> None:
        change = Change(f"change-{len(self.events)}", "a person", "because")
        unit = self.unit(MODEL, move_ref(change.id))
        self.events.append(unit.apply(decide("router", self.model, change)))

    def promote(self, alias: str, version: str) -> None:
        self.change(lambda model, state, change: promote(model, alias, Target(version), state, change))

    def roll_back(self, alias: str, version: str | None = None) -> None:
        self.change(
            lambda model, state, change: roll_back(
                model, alias, Target(earlier_version(alias, version, state)), state, change
            )
        )

    def describe(self, job: str, description: str | None = None, **tags: str | None) -> RegistrationState:
        ref = registration_ref(job, "register")
        unit = self.unit(MODEL, ref)
        state = self.rows[ref].state
        assert isinstance(state, RegistrationState)
        if decision := describe(state, description, tags, "a person"):
            self.events.append(unit.apply(decision))
        described = self.rows[ref].state
        assert isinstance(described, RegistrationState)
        return described

    @property
    def moves(self) -> list[AliasMove]:
        """Every move, in the order in which they were made."""
        states = (row.state for row in self.rows.values())
        found = [state.move for state in states if isinstance(state, AliasMoveState) and state.move]
        return sorted(found, key=lambda move: move.at)

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


def test_whether_a_version_of_an_earlier_release_was_evaluated_follows_from_its_lineage() -> None:
    predictions = ArtifactRef(uri="/p", sha256="2" * 64, size=1)
    measured = StepResult(inputs={"adapter": ADAPTER.sha256}, outputs={"predictions": predictions}, metrics={"loss": 0.5})

    def shown(evaluated: bool | None, **results: StepResult) -> bool:
        made = wanted(a_lineage(results=results)).model_copy(update={"version": "1.0.0", "evaluated": evaluated})
        return VersionView.of(made, datetime(2030, 1, 1, tzinfo=UTC), ()).evaluated

    assert shown(None, evaluate=measured)
    assert not shown(None)
    assert not shown(False, evaluate=measured), "the event says it"


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
        ({"configuration": {"rank": 8, "threads": "4", "device": "cuda", "libraries": {"torch": "2.13.0"}}}, "1.0.1"),
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


def test_a_job_names_the_number_of_its_version_and_the_next_follows_from_it() -> None:
    scenario = RegistryScenario()
    assert scenario.register(a_lineage("job-1"), version="2.3.0") == "2.3.0"
    assert scenario.register(a_lineage("job-2")) == "2.3.1"
    assert scenario.register(a_lineage("job-1"), version="9.9.9") == "2.3.0", "the step has its version"
    other = a_lineage("job-3", base_model_sha256="c" * 64)
    assert scenario.register(other, version="1.4.0") == "1.4.0", "a line of a lower number may begin, and go on"
    assert scenario.register(other.model_copy(update={"job_id": "job-4"}), version="1.4.1") == "1.4.1"
    assert (scenario.model.highest, scenario.model.lines) == ("2.3.1", {"1": "1.4.1", "2": "2.3.1"})
    assert scenario.register(a_lineage("job-5")) == "2.3.2", "the comparison is with the highest version"


@pytest.mark.parametrize("number", ["1.2.0", "1.1.9", "0.0.1"])
def test_a_number_that_is_taken_or_below_the_highest_of_its_line_is_refused_with_that(number: str) -> None:
    scenario = RegistryScenario()
    for named in ("0.3.0", "1.2.0"):
        scenario.register(a_lineage(named), version=named)
    with pytest.raises(VersionRefused) as raised:
        scenario.register(a_lineage("late"), version=number)
    reason = raised.value.reason
    assert (reason.field, reason.value) == ("register_version", repr(number))
    assert ("is 0.3.0" if number[0] == "0" else "is 1.2.0") in reason.message
    assert scenario.model.count == 2


def test_a_model_remembers_so_many_lines_and_an_older_one_gets_no_version() -> None:
    scenario = RegistryScenario()
    for line in range(1, LINES + 2):
        scenario.register(a_lineage(f"job-{line}"), version=f"{line}.0.0")
    assert list(scenario.model.lines) == [str(line) for line in range(2, LINES + 2)]
    with pytest.raises(VersionRefused, match=f"only the last {LINES} lines"):
        scenario.register(a_lineage("late"), version="1.0.1")
    assert scenario.register(a_lineage("last"), version="2.0.1") == "2.0.1"


def test_an_alias_keeps_its_history() -> None:
    scenario = RegistryScenario()
    scenario.register(a_lineage("job-1"))
    scenario.register(a_lineage("job-2"))
    assert [(move.version, move.previous) for move in scenario.moves] == [("1.0.0", None), ("1.0.1", "1.0.0")]
    assert scenario.moves[-1].by == "r"
    assert "job-2" in scenario.moves[-1].reason


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
    given = [event.data.version for event in live.events if isinstance(event.data, ModelRegistered)]
    assert live.model.count == len(set(given)) == len({job for job, _ in asked})
    assert live.model.highest == str(max(map(Version.parse, given)))


def test_the_state_of_a_model_is_as_large_after_a_thousand_versions_and_moves_as_after_a_hundred() -> None:
    scenario = RegistryScenario()
    sizes = {}
    for number in range(1000):
        scenario.register(a_lineage(f"job-{number:04}", dataset_sha256=f"{number:064}"))
        sizes[number] = len(scenario.model.model_dump_json())
    assert sizes[999] == pytest.approx(sizes[99], rel=0.05)
    assert (scenario.model.count, scenario.model.highest, len(scenario.model.newest)) == (1000, "1.999.0", NEWEST)
    assert len(scenario.model.earlier["candidate"]) == EARLIER
    assert len(scenario.moves) == 1000


def test_an_alias_goes_back_to_the_good_versions_that_it_named_one_after_the_other() -> None:
    scenario = RegistryScenario()
    for number in range(4):
        scenario.register(a_lineage(f"job-{number}"), alias=None)
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        scenario.promote("production", version)
    scenario.roll_back("production")
    assert scenario.model.aliases == {"production": "1.0.1"}
    scenario.promote("production", "1.0.3")
    assert scenario.model.earlier["production"] == ("1.0.0", "1.0.1"), "it went back from 1.0.2, which is no good version"
    scenario.roll_back("production", "1.0.0")
    assert scenario.model.aliases == {"production": "1.0.0"}
    with pytest.raises(ChangeRefused, match="has not named another version before"):
        scenario.roll_back("production")
    with pytest.raises(ChangeRefused, match=r"has not named 1\.0\.2 before"):
        scenario.roll_back("production", "1.0.2")
    assert [move.kind for move in scenario.moves] == [*["promoted"] * 3, "rolled_back", "promoted", "rolled_back"]
    assert {(move.by, move.reason) for move in scenario.moves} == {("a person", "because")}


def test_an_alias_that_was_removed_names_nothing_and_has_nothing_to_go_back_to() -> None:
    scenario = RegistryScenario()
    for number in range(2):
        scenario.register(a_lineage(f"job-{number}"))
    scenario.change(lambda model, state, change: remove(model, "candidate", state, change))
    assert (scenario.model.aliases, scenario.model.earlier) == ({}, {})
    assert (scenario.moves[-1].kind, scenario.moves[-1].version, scenario.moves[-1].previous) == ("removed", None, "1.0.1")
    with pytest.raises(ChangeRefused, match="no such alias"):
        scenario.roll_back("candidate")


@pytest.mark.parametrize("alias", ["1", "2024", "v1", "V2.0", "1.0.0", "1.2.3-rc1", "latest", "Latest"])
def test_an_alias_that_reads_like_a_version_does_not_move_and_the_version_stays(alias: str) -> None:
    scenario = RegistryScenario()
    assert scenario.register(a_lineage(), alias=alias) == "1.0.0"
    registered, refused = (event.data for event in scenario.events)
    assert isinstance(registered, ModelRegistered)
    assert isinstance(refused, AliasRefused)
    assert (refused.alias, refused.version, refused.reasons[0].field) == (alias, "1.0.0", "alias")
    assert scenario.model.aliases == {}
    with pytest.raises(ChangeRefused, match="candidate or production"):
        scenario.promote(alias, "1.0.0")


@pytest.mark.parametrize("alias", ["candidate", "production", "eu-west.canary", "v", "version", "lat3st"])
def test_an_alias_that_says_what_it_is_for_moves(alias: str) -> None:
    scenario = RegistryScenario()
    scenario.register(a_lineage(), alias=alias)
    assert scenario.model.aliases == {alias: "1.0.0"}


def test_a_model_has_so_many_aliases_at_most_and_those_that_it_has_still_move() -> None:
    scenario = RegistryScenario()
    scenario.register(a_lineage())
    for number in range(ALIASES_AT_MOST - 1):
        scenario.promote(f"a{number}", "1.0.0")
    with pytest.raises(ChangeRefused, match="remove an alias"):
        scenario.promote("another", "1.0.0")
    scenario.register(a_lineage("job-2"), alias="candidate")
    assert scenario.model.aliases["candidate"] == "1.0.1"


def test_a_version_is_described_by_a_text_and_tags_and_is_itself_as_before() -> None:
    scenario = RegistryScenario()
    scenario.register(a_lineage())
    before = scenario.describe("job-1")
    described = scenario.describe("job-1", "Without the data of 2025.", team="support", reviewed="yes")
    assert (described.description, described.tags) == ("Without the data of 2025.", {"reviewed": "yes", "team": "support"})
    assert described.registered == before.registered
    changed = scenario.describe("job-1", None, reviewed=None, team="sales")
    assert (changed.description, changed.tags) == ("Without the data of 2025.", {"team": "sales"})
    told = len(scenario.events)
    assert scenario.describe("job-1", changed.description, team="sales", absent=None) == changed
    assert len(scenario.events) == told, "what changes nothing is not announced"
    with pytest.raises(TooManyTags, match=f"has {TAGS_AT_MOST} at most"):
        scenario.describe("job-1", None, **{f"tag-{number}": "x" for number in range(TAGS_AT_MOST)})


def test_a_move_of_an_earlier_release_has_the_id_of_its_event() -> None:
    moved = an_event(ModelPromoted(model="router", alias="prod", version="1.0.0", previous=None), "neuroweaver/registry")
    assert RegistryDomain().touches(moved) == (MODEL, move_ref(moved.id))


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
