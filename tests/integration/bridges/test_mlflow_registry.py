"""A real MLflow registry shows what the log says of models, whatever ends in between, and from the start of the log the same again."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.envelope import Event, encode
from schemas.models import (
    AliasRemoved,
    Lineage,
    ModelPromoted,
    ModelRegistered,
    ModelRolledBack,
    VersionDescribed,
    VersionStateChanged,
)
from schemas.topics import MODELS
from services.bridges import following
from services.bridges.mirroring import Mirror
from services.bridges.mlflow_registry import OWN, Away, Foreign, MlflowRegistry
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer
from services.cli.main import app
from tests.mlflow_server import MlflowServer
from tests.steps import an_event
from tests.toy import until

LOG = "cluster-of-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    made = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    made.start()
    yield made
    made.kill()


def registered(model: str, version: str, **metrics: float | None) -> ModelRegistered:
    lineage = Lineage(
        job_id="job-1", step="register", requester="ana", base_model="base", base_model_sha256="b" * 64, dataset_sha256="d" * 64,
        results={},
    )  # fmt: skip
    artifact = ArtifactRef(uri="/artifacts/a", sha256="a" * 64, size=1)
    return ModelRegistered(model=model, version=version, artifact=artifact, lineage=lineage, metrics=metrics)


def story(model: str) -> list[Event]:
    """Two versions, of which the second one is promoted, described, taken back and deprecated."""
    move: dict[str, Any] = {"model": model, "alias": "production"}
    made: list[EventData] = [
        registered(model, "1.0.0", exact_match=0.5, unknown=None, **{"harness.arc,easy": 0.25}),
        ModelPromoted(**move, version="1.0.0", previous=None),
        registered(model, "1.1.0", exact_match=0.75),
        ModelPromoted(**move, version="1.1.0", previous="1.0.0"),
        VersionDescribed(model=model, version="1.1.0", job_id="job-1", step="register", description="New.", tags={"old": "x"}),
        VersionDescribed(model=model, version="1.1.0", job_id="job-1", step="register", description="Newer.", tags={"team": "a"}),
        ModelRolledBack(**move, version="1.0.0", previous="1.1.0"),
        ModelPromoted(model=model, alias="gone", version="1.0.0", previous=None),
        AliasRemoved(model=model, alias="gone", previous="1.0.0", move="m"),
        VersionStateChanged(
            model=model, version="1.1.0", job_id="job-1", step="register", state="deprecated", previous="live", by="ana", reason="Worse."
        ),
    ]  # fmt: skip
    return [an_event(data, source="neuroweaver/registry", subject=model, sequence=n) for n, data in enumerate(made, 1)]


def mirror(server: MlflowServer, said: list[str] | None = None, log: str = LOG) -> Mirror:
    return Mirror(MlflowRegistry(server.uri, log), (), (said if said is not None else []).append)


def seen(server: MlflowServer, model: str) -> dict[str, Any]:
    """What MLflow shows of a model."""
    from mlflow import MlflowClient

    client = MlflowClient(server.uri, registry_uri=server.uri)
    found = client.get_registered_model(model)
    versions = sorted(client.search_model_versions(f"name = '{model}'"), key=lambda one: int(one.version))
    return {
        "aliases": {name: client.get_model_version(model, number).tags[f"{OWN}version"] for name, number in found.aliases.items()},
        "sequence": found.tags[f"{OWN}sequence"],
        "versions": [
            (one.tags[f"{OWN}version"], one.description, {k: v for k, v in one.tags.items() if not k.startswith(OWN)})
            for one in versions
        ],
        "states": [one.tags.get(f"{OWN}state") for one in versions],
        "metrics": [client.get_run(one.run_id).data.metrics for one in versions],
    }  # fmt: skip


EXPECTED = {
    "aliases": {"production": "1.0.0"},
    "sequence": "10",
    "versions": [("1.0.0", "", {}), ("1.1.0", "Newer.", {"team": "a"})],
    "states": [None, "deprecated"],
    "metrics": [{"exact_match": 0.5, "harness.arc_easy": 0.25}, {"exact_match": 0.75}],
}


def test_versions_metrics_aliases_and_tags_are_mirrored_and_a_second_time_nothing_changes(server: MlflowServer) -> None:
    events = story("router")
    assert [mirror(server).apply(event) for event in events] == [True] * len(events)
    assert seen(server, "router") == EXPECTED
    again = mirror(server)
    assert not any(again.apply(event) for event in events)
    assert seen(server, "router") == EXPECTED


def test_a_bridge_that_dies_after_any_call_goes_on_where_it_was(server: MlflowServer) -> None:
    """Each call took effect, and nobody read its answer."""
    events = story("died")
    for call in ("create_registered_model", "create_run", "create_model_version", "set_registered_model_tag"):
        broken = MlflowRegistry(server.uri, LOG)
        setattr(broken._client, call, unanswered(getattr(broken._client, call)))
        with pytest.raises(Away):
            Mirror(broken, (), print).apply(events[0])
    healthy = mirror(server)
    assert [healthy.apply(event) for event in events] == [False] + [True] * (len(events) - 1)
    assert seen(server, "died") == EXPECTED


def unanswered(call: Callable[..., object]) -> Callable[..., None]:
    def dies(*given: object, **named: object) -> None:
        call(*given, **named)
        raise ConnectionError("nobody reads the answer")

    return dies


def test_a_server_that_was_killed_and_lost_its_last_hour_gets_what_it_lacks(server: MlflowServer) -> None:
    events, running = story("lost"), mirror(server)
    for event in events[:3]:
        running.apply(event)
    backup = server.home / "backup.db"
    with closing(sqlite3.connect(server.database)) as live, closing(sqlite3.connect(backup)) as copy:
        live.backup(copy)
    for event in events[3:6]:
        running.apply(event)
    server.kill()
    with pytest.raises(Away):
        running.apply(events[6])
    for file in server.home.glob("mlflow.db*"):
        file.unlink()
    shutil.copyfile(backup, server.database)
    server.start()
    with pytest.raises(Away, match="earlier state"):
        running.apply(events[6])
    running.forget()
    for event in events:
        running.apply(event)
    assert seen(server, "lost") == EXPECTED


def test_what_mlflow_does_not_take_is_said_noted_and_passed_over(server: MlflowServer) -> None:
    from mlflow import MlflowClient

    said: list[str] = []
    events = [registered("odd", "1.0.0"), ModelPromoted(model="odd", alias="a.b", version="1.0.0", previous=None)]
    running = mirror(server, said)
    for number, data in enumerate(events, 1):
        running.apply(an_event(data, source="neuroweaver/registry", subject="odd", sequence=number))
    assert [line for line in said if "a.b" in line]
    assert "a.b" in MlflowClient(server.uri, registry_uri=server.uri).get_registered_model("odd").tags[f"{OWN}refused"]


def test_a_model_of_others_or_of_another_log_is_left_alone(server: MlflowServer) -> None:
    from mlflow import MlflowClient

    MlflowClient(server.uri, registry_uri=server.uri).create_registered_model("theirs")
    with pytest.raises(Foreign, match="theirs"):
        mirror(server).apply(story("theirs")[0])
    mirror(server).apply(story("ours")[0])
    with pytest.raises(Foreign, match="ours"):
        mirror(server, log="another").apply(story("ours")[0])


def test_the_word_of_somebody_else_about_our_models_is_not_mirrored(server: MlflowServer) -> None:
    event = an_event(registered("forged", "1.0.0"), source="somebody", subject="forged", sequence=1)
    assert not mirror(server).apply(event)


async def test_the_command_reads_the_log_and_mirrors_it_once(server: MlflowServer, kafka: str) -> None:
    producer = make_producer(Cluster(kafka), "bridge-tests")
    await producer.start()
    for event in story("commanded"):
        value, headers = encode(event)
        await producer.send_and_wait(MODELS.name, value, b"commanded", headers=headers)
    await producer.stop()
    first = await commanded(kafka, server.uri, "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == {"applied": 10}
    assert await asyncio.to_thread(seen, server, "commanded") == EXPECTED
    away = await commanded(kafka, "http://127.0.0.1:9")
    assert away.exit_code == 3, away.output
    await follows(Cluster(kafka))


async def commanded(kafka: str, uri: str, *more: str) -> Any:
    """Run the command in this process, which has imported MLflow's client already: that takes seconds."""
    asked = ["bridge", "mlflow", uri, "--once", "--model", "commanded", *more]
    return await asyncio.to_thread(CliRunner().invoke, app, asked, env={"NEUROWEAVER_KAFKA_BOOTSTRAP": kafka})


async def follows(cluster: Cluster) -> None:
    """While MLflow is away nothing is lost: then the log is read again from its start."""
    numbers, said, stop = list[int](), list[str](), asyncio.Event()

    class Recovering(Mirror):
        def apply(self, event: Event) -> bool:
            if getattr(event.data, "model", None) == "commanded":
                numbers.append(event.sequence or 0)
                if numbers == [1, 2]:
                    raise Away("it does not answer")
            return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "_RETRY_SECONDS", 0)
        mirror: Any = Recovering(cast(Any, None), (), said.append)
        running = asyncio.create_task(following.follow(cluster, mirror, stop, said.append))
        await until(lambda: said[-1:] == ["MLflow answers again"])
        stop.set()
        await running
    assert numbers == [1, 2, *range(1, 11)]
