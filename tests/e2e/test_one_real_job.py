"""From JobRequested on Kafka to ModelRegistered, with four processes, real servers and really trained weights."""

import json
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import JobCompleted, StepCompleted, StepFailed, StepStarted
from schemas.models import ModelRegistered
from schemas.progress import StepProgressed
from schemas.topics import JOBS, MODELS, PROGRESS, REQUESTS
from services.chassis.storage.artifacts.store import ArtifactStore
from tests.command import ended
from tests.e2e.system import System, neuroweaver, wait_for
from tests.front import front
from tests.harness_tasks import choice_task
from tests.integration.feedback.endpoint import chat_endpoint, says
from tests.log import read_all

LIGHT_BYTES = 200 * 1024 * 1024
"""Torch alone takes over 500 MiB; the code and the types of an orchestrator take 100 before its first event."""
SHORT = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
    {"name": "register", "kind": "register", "inputs": {"adapter": "train.adapter"}},
]
JUDGED = [
    SHORT[0],
    {"name": "align", "kind": "train", "algorithm": "grpo", "inputs": {"dataset": "prepare.dataset"}},
    {"name": "evaluate", "kind": "evaluate", "inputs": {"dataset": "prepare.dataset", "adapter": "align.adapter"}},
    {"name": "register", "kind": "register", "needs": ["evaluate"], "inputs": {"adapter": "align.adapter"}},
]
LONG = {"steps": 400, "batch_size": 8, "learning_rate": 0.003, "schedule": "constant"}


def step_status(system: System, job_id: str, step: str) -> str:
    (found,) = [known["status"] for known in system.job(job_id)["steps"] if known["name"] == step]
    return str(found)


async def test_a_job_requested_on_kafka_becomes_a_registered_model_and_every_hop_is_traceable(
    system: System, requested: dict[str, Any], finished: dict[str, Any]
) -> None:
    request, job = requested, finished
    assert (job["model"], job["version"]) == (request["register_as"], "1.0.0")

    history = await system.history(request["job_id"])
    assert [type(event.data).__name__ for event in history][:2] == ["JobAccepted", "StepRequested"]
    assert isinstance(history[-1].data, JobCompleted)
    (asked,) = await system.history(request["job_id"], REQUESTS.name)
    (registered,) = [e for e in await system.history(request["job_id"], MODELS.name) if isinstance(e.data, ModelRegistered)]
    by_id = {event.id: event for event in [*history, asked, registered]}
    assert {event.traceparent.split("-")[1] for event in by_id.values()} == {asked.traceparent.split("-")[1]}
    hop, hops = registered, 0
    while hop.causation_id:
        hop, hops = by_id[hop.causation_id], hops + 1
    assert hop.id == asked.id
    assert hops > 5

    model = system.services["registry"].get(f"/models/{request['register_as']}@1.0.0")
    artifact = ArtifactRef.model_validate(model["artifact"])
    assert registered.data.artifact == artifact  # type: ignore[attr-defined]
    files = {entry.path for entry in ArtifactStore(str(system.home / "artifacts")).verify(artifact).files}
    assert "adapter_model.safetensors" in files


async def test_every_record_on_the_topics_is_readable_json_with_cloudevents_headers(system: System) -> None:
    for topic in (REQUESTS, JOBS, MODELS):
        records = await read_all(system.stack.kafka_bootstrap, topic.name)
        assert records
        for record in records:
            headers = {name: value.decode() for name, value in record.headers}
            json.loads(record.value)
            assert {"ce_id", "ce_source", "ce_type", "ce_specversion", "ce_time", "ce_dataschema"} <= headers.keys()
            assert headers["content-type"] == "application/json"


def test_the_rlaif_pipeline_learns_from_feedback_and_registers_the_aligned_adapter(system: System) -> None:
    job_id = system.start_job(pipeline="rlaif")
    job = system.wait_job(job_id)
    model = system.services["registry"].get(f"/models/{job['model']}@{job['version']}")
    steps = model["lineage"]["results"]
    assert {"train", "sample", "label", "align"} <= steps.keys()
    assert model["artifact"] == steps["align"]["outputs"]["adapter"]
    assert steps["label"]["metrics"]["pairs"] > 0
    code, trace = neuroweaver(system, "audit", "trace", job_id)
    assert (code, trace["missing"]) == (0, [])
    (label,) = [step for step in trace["steps"] if step["kind"] == "label"]
    assert [batch["recorded"]["pairs"] for batch in label["batches"]] == [steps["label"]["metrics"]["pairs"]]
    for step in job["steps"]:
        address = system.url("orchestrator", f"/training/{job_id}/steps/{step['name']}/report")
        answer = httpx2.get(address, timeout=60)
        assert answer.status_code == (404 if step["kind"] == "register" else 200), answer.text
        assert step["name"] in answer.text
    log = httpx2.get(system.url("trainer", f"/logs/trainer/{job_id}/train/1"), timeout=60).json()
    assert any("step 4 of 4" in line for line in log["lines"])


async def test_training_whose_process_and_then_whose_worker_is_killed_with_kill_9_resumes_and_the_loss_curve_continues(
    system: System,
) -> None:
    training = {"optimiser": LONG, "max_length": 160, "precision": "fp32", "checkpoint_steps": 20}
    pipeline = [
        {"name": "prepare", "kind": "prepare"},
        {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
    ]
    job_id = system.start_job(pipeline=pipeline, training=training)
    trainer = system.services["trainer"]
    folder = system.home / "checkpoints" / job_id / "train"

    def of_attempt(number: int) -> set[Path]:
        return set(folder.glob(f"{number}/*/step-*/manifest.json"))

    def told() -> str:
        return json.dumps(system.job(job_id), indent=1)

    wait_for(lambda: bool(of_attempt(1)), told)
    (child,) = trainer.children()
    child.kill()
    wait_for(lambda: bool(of_attempt(2)), told)
    (child,) = trainer.children()
    trainer.kill()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, lambda: "an orphan trains on")
    trainer.start()
    trainer.wait_ready()
    system.wait_job(job_id)

    events = await system.history(job_id)
    history = [event.data for event in events]
    starts = [event for event in events if isinstance(event.data, StepStarted) and event.data.step == "train"]
    failures = [data.fault.cause for data in history if isinstance(data, StepFailed)]
    assert len(starts) >= 3, "a machine under load may lose a lease besides"
    assert failures == ["infrastructure"]
    (trained,) = [data for data in history if isinstance(data, StepCompleted) and data.step == "train"]
    store = ArtifactStore(str(system.home / "artifacts"))
    adapter = store.fetch(trained.result.outputs["adapter"], system.home / "fetched" / job_id)
    curve = [json.loads(line) for line in (adapter / "curve.jsonl").read_text().splitlines()]
    assert [point["step"] for point in curve] == list(range(1, 401))
    assert curve[-1]["loss"] < curve[0]["loss"]
    progress = [e for e in await system.history(job_id, PROGRESS.name) if isinstance(e.data, StepProgressed)]
    later = {start.id for start in starts[1:]}
    resumed = [e.data.done for e in progress if e.causation_id in later and e.data.done]  # type: ignore[attr-defined]
    assert min(resumed) >= 20


def test_a_running_job_is_cancelled_over_http_and_nothing_of_it_runs_on(system: System) -> None:
    training = {"optimiser": {**LONG, "steps": 100_000}, "max_length": 160, "precision": "fp32"}
    job_id = system.start_job(training=training)
    trainer = system.services["trainer"]
    wait_for(lambda: step_status(system, job_id, "train") == "running", lambda: str(system.job(job_id)))
    wait_for(lambda: bool(trainer.children()), lambda: "no child runs")
    answer = httpx2.post(system.url("orchestrator", f"/training/{job_id}/cancel"), json={"reason": "changed my mind"})
    assert answer.status_code == 202, answer.text
    job = system.wait_job(job_id, "cancelled")
    assert job["version"] is None
    wait_for(lambda: not trainer.children(), lambda: "a child runs on")


async def test_a_request_that_is_not_valid_is_rejected_with_the_same_words_on_kafka_and_over_http(system: System) -> None:
    request = system.request(pipeline="alchemy", priority=1000)
    answer = httpx2.post(system.url("orchestrator", "/training/start"), json=request)
    assert answer.status_code == 422
    await system.publish(request)
    job = system.wait_job(request["job_id"], "rejected")
    assert job["reasons"] == answer.json()["reasons"]
    assert {reason["field"] for reason in job["reasons"]} == {"pipeline", "priority"}


async def test_a_missing_data_set_fails_its_job_once_with_field_value_and_remedy(system: System) -> None:
    job_id = system.start_job(dataset={"reference": str(system.home / "nowhere")})
    job = system.wait_job(job_id, "failed")
    assert job["failure"]["step"] == "prepare"
    (reason,) = job["failure"]["fault"]["reasons"]
    assert reason["field"] == "dataset.reference"
    assert "nowhere" in reason["value"]
    assert reason["remedy"]
    failures = [event for event in await system.history(job_id) if isinstance(event.data, StepFailed)]
    assert len(failures) == 1


async def test_a_job_starts_from_a_version_of_another_job_by_event_and_by_command_and_the_version_says_so(
    system: System, requested: dict[str, Any], finished: dict[str, Any], tmp_path: Path
) -> None:
    start = f"{finished['model']}@{finished['version']}"
    by_event = system.request(base_model=start, pipeline=SHORT, register_as=requested["register_as"])
    by_command = system.request(base_model=f"{finished['model']}@candidate", pipeline=SHORT)
    await system.publish(by_event)
    (tmp_path / "job.json").write_text(json.dumps(by_command))
    orchestrator = system.services["orchestrator"]
    address = {**orchestrator.env, "NEUROWEAVER_HTTP": f"http://127.0.0.1:{orchestrator.port}"}
    submitted = ended(["jobs", "submit", str(tmp_path / "job.json"), "--json"], address)
    assert submitted.code == 0, submitted.err
    for request in (by_event, by_command):
        system.wait_job(request["job_id"])
    registry = system.services["registry"]
    address = {**registry.env, "NEUROWEAVER_HTTP": f"http://127.0.0.1:{registry.port}"}
    for version, origin in ((f"{finished['model']}@1.1.0", start), (f"{by_command['register_as']}@1.0.0", start)):
        shown = ended(["models", "show", version], address)
        assert shown.code == 0, shown.err
        (line,) = [line for line in shown.out.splitlines() if line.startswith("started from")]
        assert origin.partition("@")[0] in line
        assert ended(["models", "try", version, "hello", "--tokens", "2", "--json"], address).code == 0
    with front({"training": orchestrator.port, "models": registry.port, "comparison": registry.port}) as one:
        again = ended(
            ["models", "reproduce", f"{by_command['register_as']}@1.0.0", "--json"], {**address, "NEUROWEAVER_HTTP": one}
        )
    assert again.code == 0, again.err
    assert again.json["equal"] is True, again.json
    assert again.json["reproduced"] == f"{by_command['register_as']}-reproduced@1.0.0"


def test_a_version_that_was_exported_is_imported_with_the_same_digest_and_never_reproduced(
    system: System, requested: dict[str, Any], finished: dict[str, Any]
) -> None:
    registry, orchestrator = system.services["registry"], system.services["orchestrator"]
    version, name = f"{finished['model']}@{finished['version']}", f"{finished['model']}-again"
    folder = system.home / "data" / "given"
    with front({"training": orchestrator.port, "models": registry.port}) as one:
        address = {**registry.env, "NEUROWEAVER_HTTP": one}
        given = ended(["models", "export", version, str(folder), "--json"], address)
        assert given.code == 0, given.err
        (folder / "README.md").write_text((folder / "README.md").read_text().replace("---\n", "---\nlicense: mit\n", 1))
        again = ["models", "import", str(folder), name, "--base", requested["base_model"], "--by", "ana", "--json"]
        first = ended(again, address)
        assert first.code == 0, first.out
        lineage = first.json["lineage"]
        assert first.json["artifact"]["sha256"] == given.json["sha256"]
        assert (lineage["requester"], lineage["imported"]["licence"]) == ("ana", "mit")
        second = ended(again, address)
        assert (second.json["id"], second.json["aliases"]) == (f"{name}@1.0.1", [])
        assert f"the files are those of {name}@1.0.0" in second.err
        assert "imported from" in ended(["models", "reproduce", f"{name}@1.0.0"], address).err


async def test_a_judge_rewards_a_training_a_task_of_the_harness_measures_it_and_mlflow_records_both(
    system: System, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    task = choice_task(system.home / "tasks")
    small = system.request()
    evaluation = {**small["evaluation"], "samples": 2, "pass_at": [1, 2], "harness": {"tasks": [str(task)]}}
    store = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(store)
    client.search_experiments()  # creates the tables, which the recorder would otherwise create at the same time
    recorded = {"NEUROWEAVER_MLFLOW_TRACKING_URI": store, "NEUROWEAVER_MLFLOW_EXPERIMENT": "e2e"}
    with chat_endpoint() as chat, system.services["trainer"].restarted_with(**recorded):
        chat.answer = lambda body: says(str(1 + len(body["messages"][-1]["content"].encode()) % 5))
        judge = {"kind": "openai", "endpoint": chat.url, "model": "judge"}
        feedback = {"judge": judge, "rubric": {"principle": "The reply is short."}}
        grpo = {
            "rewards": [{"kind": "judge", "feedback": feedback}],
            "precision": "fp32", "max_new_tokens": 8, "group_size": 4, "max_prompt_tokens": 128,
            "optimiser": {"steps": 2, "batch_size": 8, "learning_rate": 0.01},
        }  # fmt: skip
        request = {**small, "pipeline": JUDGED, "grpo": grpo, "evaluation": evaluation}
        await system.publish(request)
        job = system.wait_job(request["job_id"])
        assert chat.asked, "the judge is asked"
    model = system.services["registry"].get(f"/models/{job['model']}@{job['version']}")
    steps = model["lineage"]["results"]
    assert steps["align"]["facts"]["judge"] == "openai:judge"
    assert len(steps["align"]["facts"]["rubric_sha256"]) == 64
    assert model["metrics"].keys() >= {"harness_colours_acc", "harness_colours_acc_low", "harness_colours_rows"}
    experiment = client.get_experiment_by_name("e2e")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {
        f"{request['job_id']}/{step}": "FINISHED" for step in ("align", "evaluate")
    }
    values = {step: runs[f"{request['job_id']}/{step}"].data.metrics for step in ("align", "evaluate")}
    assert "reward_judge" in values["align"]
    assert values["evaluate"]["result.harness_colours_acc"] == model["metrics"]["harness_colours_acc"]


@pytest.mark.parametrize("name", ["orchestrator", "registry"])
def test_a_light_service_stays_light(system: System, name: str) -> None:
    assert psutil.Process(system.services[name].pid).memory_info().rss < LIGHT_BYTES


def test_sigterm_drains_a_service_and_it_ends_with_exit_code_0(system: System) -> None:
    feedback = system.services["feedback"]
    assert feedback.stop() == 0
    feedback.start()
    feedback.wait_ready()


def test_a_fetched_artifact_is_the_same_bytes(system: System, tmp_path: Path) -> None:
    models = system.services["registry"].get("/models")["items"]
    assert models
    model = system.services["registry"].get(f"/models/{models[0]['id']}")
    artifact = ArtifactRef.model_validate(model["artifact"])
    folder = ArtifactStore(str(system.home / "artifacts")).fetch(artifact, tmp_path)
    assert (folder / "adapter_config.json").exists()
