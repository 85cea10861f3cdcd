"""The registry on real Kafka and PostgreSQL: one version per step, in order per model, of proved artifacts."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.jobs import StepCompleted, StepFailed, StepRequested, StepResult
from schemas.models import AliasRefused, AliasRemoved, ModelPromoted, ModelRegistered, ModelRolledBack, VersionDescribed
from services.chassis.executor.child import Context
from services.feedback.steps.score import score
from services.registry.views import VersionSummary
from tests.feedback import ASKED, BAD, GOOD, trained_judge
from tests.registry import Registry
from tests.tiny_model import build
from tests.trainer import Reports, lines_of, put_lines, task_of
from tests.unit.orchestrator.scenario import JobScenario


@pytest.fixture(scope="module")
async def running(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("registry")).running() as registry:
        yield registry


@pytest.fixture
def registry(running: Registry) -> Registry:
    """The one that runs, with names of this test's own."""
    running.begin()
    return running


async def test_a_register_step_becomes_a_version_with_its_lineage_and_is_announced(registry: Registry) -> None:
    adapter = registry.adapter()
    step = registry.step("job", "router", adapter)
    await registry.ask(step)
    completed = (await registry.outcome(step)).data
    assert isinstance(completed, StepCompleted)
    assert completed.result.facts["version"] == "1.0.0"
    registered, promoted = await registry.about("router", 2)
    assert isinstance(registered.data, ModelRegistered)
    assert registered.data.evaluated is True
    assert isinstance(promoted.data, ModelPromoted)
    assert {registered.correlation_id, promoted.correlation_id} == {step.job_id}
    answer = await registry.http.get(f"/models/{registry.name('router')}@candidate")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["version"] == "1.0.0"
    assert (shown["metrics"], shown["evaluated"]) == ({"exact_match": 0.9}, True)
    assert shown["artifact"] == adapter.model_dump()
    assert shown["lineage"]["dataset_sha256"] == "d" * 64
    assert shown["lineage"]["configuration"] == {"rank": 8}
    (listed,) = (await registry.http.get(f"/models?requester={registry.mark}")).json()["items"]
    told = {**shown, **shown["lineage"]}
    assert listed == {name: told[name] for name in VersionSummary.model_fields}


async def test_a_reward_model_is_shown_as_one_and_no_alias_of_a_model_that_writes_answers_comes_to_name_it(
    registry: Registry,
) -> None:
    writes = registry.step("job-1", "router", registry.adapter())
    scores = registry.adapter(training__json='{"method": "reward", "scores_answers": "true"}')
    judge, wrong = registry.step("job-2", "judge", scores), registry.step("job-3", "router", scores)
    await registry.ask(writes)
    await registry.outcome(writes)
    await registry.ask(judge, wrong)
    assert isinstance((await registry.outcome(judge)).data, StepCompleted)
    refused = (await registry.outcome(wrong)).data
    assert isinstance(refused, StepFailed)
    assert refused.fault.cause == "user"
    assert refused.fault.reasons[0].field == "register_as"
    listed = (await registry.http.get(f"/models?requester={registry.mark}")).json()["items"]
    purposes = {item["name"]: item["purpose"] for item in listed}
    assert purposes == {registry.name("judge"): "scores", registry.name("router"): "answers"}


async def test_the_same_step_registered_twice_is_one_version(registry: Registry) -> None:
    adapter = registry.adapter()
    first, again = (registry.step("job", "router", adapter, attempt=attempt) for attempt in (1, 2))
    await registry.ask(first, first)
    await registry.outcome(first)
    await registry.ask(again)
    repeated = (await registry.outcome(again)).data
    assert isinstance(repeated, StepCompleted)
    assert repeated.result.facts["version"] == "1.0.0"
    assert len(await registry.about("router", 2)) == 2


async def test_jobs_that_register_into_one_model_at_once_get_versions_of_their_own_in_one_order(registry: Registry) -> None:
    steps = [registry.step(f"job-{n}", "shared", registry.adapter(f"weights {n}")) for n in range(6)]
    await registry.ask(*steps)
    for step in steps:
        await registry.outcome(step)
    registered = [
        event.data.version for event in await registry.about("shared", 12) if isinstance(event.data, ModelRegistered)
    ]
    assert registered == [f"1.0.{n}" for n in range(6)]


async def test_a_job_names_its_version_and_one_that_is_too_low_is_a_fault_of_the_user(registry: Registry) -> None:
    named, late = (
        registry.step(f"job-{number}", "router", registry.adapter(number), version=number) for number in ("2.1.0", "2.0.9")
    )
    await registry.ask(named)
    completed = (await registry.outcome(named)).data
    assert isinstance(completed, StepCompleted)
    assert completed.result.facts["version"] == "2.1.0"
    await registry.ask(late)
    failed = (await registry.outcome(late)).data
    assert isinstance(failed, StepFailed)
    assert (failed.fault.cause, failed.fault.reasons[0].field) == ("user", "register_version")
    assert "2.1.0" in failed.fault.message


async def test_a_version_is_described_and_found_by_its_tags(registry: Registry) -> None:
    step = registry.step("job", "router", registry.adapter())
    await registry.ask(step)
    await registry.outcome(step)
    name = registry.name("router")
    said = {"description": "It's the first.", "tags": {"team": "support"}, "by": "ana"}
    told = await registry.http.patch(f"/models/{name}@candidate", json=said)
    assert (told.status_code, told.json()["description"], told.json()["tags"]) == (200, said["description"], said["tags"])
    assert (await registry.http.get(f"/models/{name}")).json() == told.json()
    for text, count in (("tags.team = 'support'", 1), ("tags.team IN ('sales')", 0), ("tags.other IS NULL", 1)):
        found = await registry.http.get("/models", params={"filter": f"name = '{name}' AND {text}"})
        assert [item["tags"] for item in found.json()["items"]] == [said["tags"]] * count
    *_, described = await registry.about("router", 3)
    assert isinstance(described.data, VersionDescribed)
    assert (described.data.version, described.data.by) == ("1.0.0", "ana")
    for body, field in (
        ({"tags": {"a b": "x"}}, "tags"),
        ({"tag": {}}, "tag"),
        ({"description": "x" * 2001}, "description"),
    ):
        refused = await registry.http.patch(f"/models/{name}", json=body)
        assert (refused.status_code, field in refused.json()["reasons"][0]["field"]) == (422, True), refused.text
    many = await registry.http.patch(f"/models/{name}", json={"tags": {f"tag-{n}": "x" for n in range(20)}})
    assert (many.status_code, many.json()["reasons"][0]["field"]) == (422, "body.tags")


async def test_a_corrupted_artifact_is_refused_as_a_fault_of_the_user_and_gets_no_version(registry: Registry) -> None:
    adapter = registry.adapter()
    weights = Path(adapter.uri) / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_text("other weights")
    step = registry.step("job", "router", adapter)
    await registry.ask(step)
    failed = (await registry.outcome(step)).data
    assert isinstance(failed, StepFailed)
    assert failed.fault.cause == "user"
    assert "adapter_model.safetensors" in failed.fault.message
    assert (await registry.http.get(f"/models/{registry.name('router')}")).status_code == 404


@pytest.mark.parametrize("name", ["model__pkl", "modeling__py", "pytorch_model__bin"])
async def test_what_could_run_code_is_refused_by_name(registry: Registry, name: str) -> None:
    step = registry.step("job", "router", registry.adapter(**{name: "x"}))
    await registry.ask(step)
    failed = (await registry.outcome(step)).data
    assert isinstance(failed, StepFailed)
    (reason,) = failed.fault.reasons
    assert reason.value == name.replace("__", ".")
    assert reason.remedy


async def test_a_configuration_that_names_code_to_load_is_refused(registry: Registry) -> None:
    asks_for_code = '{"auto_map": {"AutoTokenizer": ["somebody/repository--tokenization.Mine", null]}}'
    step = registry.step("job", "router", registry.adapter(tokenizer_config__json=asks_for_code))
    await registry.ask(step)
    failed = (await registry.outcome(step)).data
    assert isinstance(failed, StepFailed)
    assert failed.fault.cause == "user"
    assert "auto_map" in failed.fault.message


@pytest.mark.parametrize("recipe", ["", "no JSON", "[]", '{"loss": NaN}', '{"padding": "' + "x" * 70_000 + '"}'])
async def test_a_recipe_that_no_event_can_carry_is_a_fault_of_the_user(registry: Registry, recipe: str) -> None:
    step = registry.step("job", "router", registry.adapter(training__json=recipe))
    await registry.ask(step)
    failed = (await registry.outcome(step)).data
    assert isinstance(failed, StepFailed)
    assert failed.fault.cause == "user"
    assert failed.fault.reasons[0].value == "training.json"


async def test_an_alias_moves_by_compare_and_set(registry: Registry) -> None:
    first, second = (
        registry.step("job-1", "router", registry.adapter("1")),
        registry.step("job-2", "router", registry.adapter("2")),
    )
    for step in (first, second):
        await registry.ask(step)
        await registry.outcome(step)
    path = f"/models/{registry.name('router')}/aliases"
    etag = (await registry.http.get(path)).headers["etag"]
    moved = await registry.http.put(f"{path}/production", json={"version": "1.0.0"}, headers={"If-Match": etag})
    assert moved.status_code == 200
    assert moved.json()["aliases"] == {"candidate": "1.0.1", "production": "1.0.0"}
    late = await registry.http.put(f"{path}/production", json={"version": "1.0.1"}, headers={"If-Match": etag})
    assert late.status_code == 412
    same = await registry.http.put(f"{path}/production", json={"version": "1.0.0"})
    assert same.headers["etag"] == moved.headers["etag"]
    other = registry.step("job-3", "router", registry.adapter("3"), alias=None)
    await registry.ask(other)
    await registry.outcome(other)
    assert (await registry.http.get(path)).headers["etag"] == moved.headers["etag"], "a version alone changes no alias"
    unknown = await registry.http.put(f"{path}/production", json={"version": "7.0.0"})
    assert unknown.status_code == 422
    assert unknown.json()["reasons"][0]["field"] == "version"
    named = (await registry.http.get(f"/models?alias=production&requester={registry.mark}")).json()["items"]
    assert [item["id"] for item in named] == [f"{registry.name('router')}@1.0.0"]


async def test_of_promotions_that_race_one_moves_the_alias_and_the_others_are_told_so(registry: Registry) -> None:
    for job in ("job-1", "job-2"):
        step = registry.step(job, "router", registry.adapter(job))
        await registry.ask(step)
        await registry.result(step)
    model = f"/models/{registry.name('router')}"
    etag = (await registry.http.get(f"{model}/aliases")).headers["etag"]
    said = await asyncio.gather(
        *(
            registry.http.put(f"{model}/aliases/production", json={"version": f"1.0.{n % 2}"}, headers={"If-Match": etag})
            for n in range(6)
        )
    )
    assert sorted(one.status_code for one in said) == [200, *[412] * 5]
    (won,) = [one.json() for one in said if one.status_code == 200]
    (move,) = (await registry.http.get(f"{model}/moves?alias=production")).json()["items"]
    assert move["version"] == won["aliases"]["production"]
    assert await registry.differences() == 0


async def test_an_alias_goes_back_with_a_reason_is_removed_and_its_moves_are_a_list(registry: Registry) -> None:
    for number in (1, 2):
        step = registry.step(f"job-{number}", "router", registry.adapter(str(number)))
        await registry.ask(step)
        await registry.outcome(step)
    name = registry.name("router")
    path = f"/models/{name}/aliases"
    without = await registry.http.post(f"{path}/candidate/rollback", json={})
    assert (without.status_code, without.json()["reasons"][0]["field"]) == (422, "body.reason")
    stale = await registry.http.post(
        f"{path}/candidate/rollback", json={"reason": "no"}, headers={"If-Match": '"1"'}
    )  # fmt: skip
    assert stale.status_code == 412
    back = await registry.http.post(f"{path}/candidate/rollback", json={"reason": "Answers are empty.", "by": "ana"})
    assert (back.status_code, back.json()["aliases"], back.json()["earlier"]) == (200, {"candidate": "1.0.0"}, {})
    further = await registry.http.post(f"{path}/candidate/rollback", json={"reason": "more"})
    assert (further.status_code, further.json()["reasons"][0]["field"]) == (422, "version")
    odd = await registry.http.put(f"{path}/v2", json={"version": "1.0.0"})
    assert (odd.status_code, odd.json()["reasons"][0]["field"]) == (422, "alias")
    gone = await registry.http.delete(f"{path}/candidate?by=ana&reason=unused")
    assert (gone.status_code, gone.json()["aliases"]) == (200, {})
    assert (await registry.http.delete(f"{path}/candidate")).status_code == 422
    assert (await registry.http.get(f"/models/{name}@candidate")).status_code == 404

    page = (await registry.http.get(f"/models/{name}/moves?limit=3")).json()
    assert [(move["kind"], move["version"], move["by"]) for move in page["items"]] == [
        ("removed", None, "ana"), ("rolled_back", "1.0.0", "ana"), ("promoted", "1.0.1", registry.mark)
    ]  # fmt: skip
    assert page["items"] == gone.json()["moves"][:3]
    rest = (await registry.http.get(f"/models/{name}/moves?limit=3&cursor={page['next']}")).json()
    assert [(move["kind"], move["previous"]) for move in rest["items"]] == [("promoted", None)]
    assert (await registry.http.get(f"/models/{name}/moves?alias=other")).json() == {"items": [], "next": None}
    *_, rolled_back, removed = await registry.about("router", 6)
    assert isinstance(rolled_back.data, ModelRolledBack)
    assert (rolled_back.data.version, rolled_back.data.previous) == ("1.0.0", "1.0.1")
    assert isinstance(removed.data, AliasRemoved)


async def test_a_job_whose_alias_does_not_move_has_its_version_and_the_log_says_why(registry: Registry) -> None:
    step = registry.step("job", "router", registry.adapter(), alias="1.0.0")
    await registry.ask(step)
    completed = (await registry.outcome(step)).data
    assert isinstance(completed, StepCompleted)
    registered, refused = await registry.about("router", 2)
    assert isinstance(registered.data, ModelRegistered)
    assert isinstance(refused.data, AliasRefused)
    assert refused.data.reasons[0].field == "alias"
    assert (await registry.http.get(f"/models/{registry.name('router')}@1.0.0")).json()["aliases"] == []


async def test_lists_are_filtered_and_paged_without_repeating_or_hiding_a_version(registry: Registry) -> None:
    for n in range(5):
        step = registry.step(f"job-{n}", "even" if n % 2 == 0 else "odd", registry.adapter(str(n)))
        await registry.ask(step)
        await registry.outcome(step)
    seen, cursor = [], ""
    while True:
        page = (await registry.http.get(f"/models?limit=2&requester={registry.mark}{cursor}")).json()
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    even, odd = registry.name("even"), registry.name("odd")
    assert seen == [f"{even}@1.0.2", f"{odd}@1.0.1", f"{even}@1.0.1", f"{odd}@1.0.0", f"{even}@1.0.0"]
    of_odd = (await registry.http.get(f"/models?name={odd}")).json()["items"]
    assert [item["version"] for item in of_odd] == ["1.0.1", "1.0.0"]
    assert (await registry.http.get(f"/models?name={odd}{cursor}")).status_code == 422
    of_job = (await registry.http.get(f"/models?job_id={registry.job('job-3')}")).json()["items"]
    assert [item["id"] for item in of_job] == [f"{odd}@1.0.1"]
    filtered = await registry.http.get("/models", params={"filter": f"name = '{odd}' AND NOT alias = 'candidate'"})
    assert [item["id"] for item in filtered.json()["items"]] == [f"{odd}@1.0.0"]
    odd_filter = await registry.http.get("/models", params={"filter": "nme = 'odd'"})
    assert (odd_filter.status_code, odd_filter.json()["reasons"][0]["field"]) == (422, "query.filter")


async def test_what_is_not_there_is_a_404_that_says_what_is(registry: Registry) -> None:
    step = registry.step("job", "router", registry.adapter())
    await registry.ask(step)
    await registry.outcome(step)
    missing = await registry.http.get(f"/models/{registry.name('router')}@9.9.9")
    assert missing.status_code == 404
    assert "1.0.0" in missing.json()["detail"]
    assert (await registry.http.get("/models/nobody")).status_code == 404
    assert (await registry.http.get("/models/a@b@c")).status_code == 422


async def test_a_whole_model_is_registered_and_shown_beside_what_it_was_made_from(registry: Registry) -> None:
    adapter, model = registry.adapter(), registry.model()
    asked = registry.step("job", "router", adapter)
    merged = StepResult(
        inputs={"adapter": adapter.sha256},
        outputs={"model": model},
        metrics={"size_bytes": 7.0, "speed_ratio": 1.1},
        facts={"compression": "merge"},
    )
    trained = StepResult(outputs={"adapter": adapter})
    step = asked.model_copy(
        update={"inputs": {"model": model}, "results": {**asked.results, "train": trained, "merge": merged}}
    )
    await registry.ask(step)
    assert (await registry.outcome(step)).type == "StepCompleted"
    shown = (await registry.http.get(f"/models/{registry.name('router')}@candidate")).json()
    assert (shown["kind"], shown["artifact"]["sha256"]) == ("model", model.sha256)
    assert shown["metrics"] == {"size_bytes": 7.0, "speed_ratio": 1.1}
    registered, _ = await registry.about("router", 2)
    assert isinstance(registered.data, ModelRegistered)
    assert (shown["evaluated"], registered.data.evaluated) == (False, False), "only its parent was"
    assert (shown["parent"], shown["parent_metrics"]) == (adapter.model_dump(), {"exact_match": 0.9})


@pytest.mark.parametrize("files", [{"run__py": "import os"}, {"model__bin": "pickle"}], ids=["code", "pickle"])
async def test_a_whole_model_with_a_file_that_may_hold_code_gets_no_version(
    registry: Registry, files: dict[str, str]
) -> None:
    step = registry.step("job", "router", registry.adapter())
    step = step.model_copy(update={"inputs": {"model": registry.model(**files)}})
    await registry.ask(step)
    failed = (await registry.outcome(step)).data
    assert isinstance(failed, StepFailed)
    assert failed.fault.reasons[0].field == "inputs.model"


async def test_a_job_starts_from_a_version_or_from_what_an_alias_names(registry: Registry) -> None:
    adapter = registry.adapter()
    await registry.ask(first := registry.step("job", "router", adapter))
    await registry.outcome(first)
    for wanted in ("1.0.0", "candidate"):
        step = registry.starting(f"next-{wanted}", f"{registry.name('router')}@{wanted}")
        await registry.ask(step)
        result = await registry.result(step)
        assert result.outputs == {"adapter": adapter}
        assert result.facts == {
            "started_from": f"{registry.name('router')}@1.0.0", "base_model": "base", "root_model": "base",
            "base_model_sha256": "b" * 64,
        }  # fmt: skip


async def test_a_whole_model_is_the_base_of_what_starts_from_it(registry: Registry) -> None:
    model, adapter = registry.model(), registry.adapter()
    whole = registry.step("whole", "router", adapter, whole=model)
    await registry.ask(whole)
    await registry.outcome(whole)
    named = f"{registry.name('router')}@1.0.0"
    await registry.ask(step := registry.starting("next", named))
    result = await registry.result(step)
    assert result.outputs == {"model": model}
    assert result.facts == {"started_from": named, "base_model": named, "root_model": "base"}
    trained = registry.step("next", "other", adapter, base=(named, model.sha256), starting=result)
    await registry.ask(trained)
    await registry.outcome(trained)
    (registered, _) = await registry.about("other", 2)
    assert isinstance(registered.data, ModelRegistered)
    assert registered.data.lineage.started_from == named
    listed = (await registry.http.get(f"/models?started_from={named}")).json()["items"]
    assert [(item["id"], item["started_from"]) for item in listed] == [(f"{registry.name('other')}@1.0.0", named)]
    refused = await registry.http.get(f"/models?started_from={registry.name('router')}@candidate")
    assert (refused.status_code, refused.json()["reasons"][0]["field"]) == (422, "query.started_from")
    await registry.ask(step := registry.starting("third", f"{registry.name('other')}@1.0.0"))
    result = await registry.result(step)
    assert result.outputs == {"adapter": adapter, "model": model}
    assert (result.facts["base_model"], result.facts["root_model"]) == (named, "base")


JUDGES = {"purpose": "scores", "field": "feedback.judge.reward_model"}


async def test_a_reward_model_is_found_as_a_judge_with_its_base_model_if_a_job_made_that(registry: Registry) -> None:
    model = registry.model()
    scores = registry.adapter(training__json='{"method": "reward", "scores_answers": "true"}')
    await registry.ask(whole := registry.step("whole", "router", registry.adapter(), whole=model))
    await registry.outcome(whole)
    base = f"{registry.name('router')}@1.0.0"
    await registry.ask(made := registry.step("judge", "judge", scores, base=(base, model.sha256)))
    await registry.outcome(made)
    reference = f"{registry.name('judge')}@candidate"
    await registry.ask(step := registry.starting("next", reference, **JUDGES))
    result = await registry.result(step)
    assert result.outputs == {"adapter": scores, "model": model}
    assert result.facts == {"judge_reference": reference, "judge_version": f"{registry.name('judge')}@1.0.0"}
    await registry.ask(step := registry.starting("wrong", base, **JUDGES))
    failed = (await registry.outcome(step)).data
    assert isinstance(failed, StepFailed)
    (reason,) = failed.fault.reasons
    assert reason.field == "feedback.judge.reward_model"
    assert base in str(reason.value)
    assert "writes answers" in reason.message


async def test_a_job_is_judged_by_the_version_that_its_alias_named_when_it_began(
    registry: Registry, tmp_path: Path
) -> None:
    """The orchestrator asks the registry, and gives what it found to the step that judges."""
    base = build(tmp_path / "base")
    trained = await asyncio.to_thread(trained_judge, tmp_path, base)
    first = registry.step("made", "judge", registry.stored(trained), base=(str(base), "b" * 64))
    await registry.ask(first)
    await registry.outcome(first)
    reference = f"{registry.name('judge')}@candidate"
    job = JobScenario(registry.job("judged"))
    asked = job.requested(pipeline="rlaif", feedback={"judge": {"reward_model": reference}})
    (resolve,) = [one for one in asked if isinstance(one, StepRequested) and one.kind == "resolve"]
    await registry.ask(resolve)
    found = await registry.result(resolve)
    moves = registry.step("again", "judge", registry.adapter(training__json='{"scores_answers": "true"}'))
    await registry.ask(moves)
    await registry.outcome(moves)

    job.completed(resolve.step, outputs=found.outputs, facts=dict(found.facts))
    job.completed("prepare")
    said = {"messages": [{"role": "user", "content": ASKED}], "columns": {}, "nll": 1.0}
    rows = [
        {**said, "id": str(n), "reference": GOOD, "greedy": text, "samples": [text]} for n, text in enumerate((GOOD, BAD))
    ]
    predictions = registry.stored(put_lines(tmp_path, predictions=rows))
    decided = job.completed("evaluate-base", outputs={"predictions": predictions})
    (judging,) = [one for one in decided if isinstance(one, StepRequested)]
    task = task_of(tmp_path, judging.settings, judging.inputs, step=judging.step, results=judging.results)
    task = task.model_copy(update={"artifacts": registry.settings.artifacts_uri})
    made = await asyncio.to_thread(score, Context(task, Reports()))
    assert made.facts["judge"] == f"reward:{registry.name('judge')}@1.0.0"
    assert made.facts["judge_model_sha256"] == found.outputs["adapter"].sha256
    better, worse = (line["greedy"] for line in lines_of(made.outputs["scores"], "scores.jsonl"))
    assert better > worse


async def test_a_version_that_is_not_there_is_refused_with_those_that_are(registry: Registry) -> None:
    adapter = registry.adapter()
    await registry.ask(first := registry.step("job", "router", adapter))
    await registry.outcome(first)
    name = registry.name("router")
    shutil.rmtree(adapter.uri)
    shutil.rmtree(registry.home / "cache" / "artifacts", ignore_errors=True)
    for number, (reference, words) in enumerate(
        (
            (f"no-{name}@1.0.0", "no model is registered"),
            (f"{name}@2.0.0", "1.0.0, candidate"),
            (f"{name}@1.0.0", "missing"),
        )
    ):
        await registry.ask(step := registry.starting(f"next-{number}", reference))
        failed = (await registry.outcome(step)).data
        assert isinstance(failed, StepFailed), failed
        (reason,) = failed.fault.reasons
        assert (failed.fault.cause, reason.field) == ("user", "base_model")
        assert reference in str(reason.value)
        assert words in f"{reason.message}; {reason.remedy}"


async def test_versions_are_compared_with_their_answers_and_one_is_recommended(registry: Registry) -> None:
    answers = (registry.predictions(r1="right", r2="wrong"), registry.predictions(r2="right", r1="right"))
    for number, predictions in enumerate(answers):
        recipe = f'{{"rank": {8 * (number + 1)}}}'
        adapter = registry.adapter(str(number), training__json=recipe)
        step = registry.step(f"job-{number}", "router", adapter, predictions=predictions)
        await registry.ask(step)
        await registry.outcome(step)
    name = registry.name("router")
    asked = f"/comparison?versions={name}@1.0.0,{name}@candidate"
    found = (await registry.http.get(f"{asked}&answers=1")).json()
    assert [version["id"] for version in found["versions"]] == [f"{name}@1.0.0", f"{name}@1.1.0"]
    assert {field["field"]: field["values"] for field in found["configuration"]}["training.rank"] == [8, 16]
    assert found["metrics"] == [], "exact_match is the same"
    assert found["answers"] == [
        {"id": "r1", "prompt": "What is it?", "reference": "right", "answers": ["right", "right"]}
    ]  # fmt: skip
    everything = (await registry.http.get(f"{asked}&everything=true")).json()
    assert [metric["name"] for metric in everything["metrics"]] == ["exact_match"]
    shutil.rmtree(answers[1].uri)
    shutil.rmtree(registry.home / "cache" / "artifacts", ignore_errors=True)
    gone = (await registry.http.get(f"{asked}&answers=2")).json()
    assert gone["answers"][1]["answers"] == ["wrong", None]
    assert gone["remarks"] == [f"the answers of {name}@1.1.0 cannot be read: ArtifactMissing"]
    for versions, status in (
        (name, 422),
        (f"{name},{name}@7.0.0", 404),
        (f"{name},a@b@c", 422),
        (",".join([name] * 6), 422),
    ):
        assert (await registry.http.get(f"/comparison?versions={versions}")).status_code == status, versions

    recommended = (await registry.http.get(f"/models/{name}/recommendation")).json()
    assert (recommended["version"], recommended["confidence"]) == (f"{name}@1.1.0", "unclear")
    assert (await registry.http.get("/models/nobody/recommendation")).status_code == 404
    for goal in ("fame", "quality=0", "quality=nan", "quality,", "quality=1e9"):
        refused = await registry.http.get(f"/models/{name}/recommendation", params={"goal": goal})
        assert (refused.status_code, refused.json()["reasons"][0]["field"]) == (422, "query.goal"), goal
