"""Services and commands on a real broker that asks for passwords and certificates; what is wrong with them is said in words."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from schemas.steps import SERVICES
from schemas.topics import CATALOGUE, DATASETS, DISCARDS, JOBS, MODELS, PROGRESS, REQUESTS, Topic
from services.chassis.kafka import topics
from services.chassis.kafka.cluster import Cluster, Mechanism, Protocol
from services.chassis.kafka.reach import Unreachable, obstacle
from services.chassis.kafka.settings import overrides
from services.chassis.kernel import log
from services.cli.exits import Exit
from services.cli.serve import build, settings_of
from tests.command import Ended, run
from tests.integration.chassis.whole_run import whole_run
from tests.log import read_all
from tests.orchestrator import Orchestrator
from tests.secured_kafka import PASSWORD, SecuredKafka, allow, secured_kafka
from tests.toy import Toy, until


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with secured_kafka(tmp_path_factory.mktemp("secured") / "broker", ("admin", *SERVICES)) as broker:
        yield broker


@pytest.fixture(scope="module")
async def with_topics(secured: SecuredKafka) -> SecuredKafka:
    await topics.apply(secured.plain)
    return secured


async def test_commands_work_and_say_why_where_they_do_not(
    with_topics: SecuredKafka, database_url: str, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """The first on these servers: it verifies databases of its own, which know nothing of what other services say there."""
    cluster = with_topics.cluster("SASL_SSL")
    databases = {
        f"{service}_database_url": make_url(database_url)
        .set(database=unique(service))
        .render_as_string(hide_password=False)
        for service in SERVICES
    }
    given = overrides(cluster) | databases | {"database_url": database_url, "home": tmp_path}
    environment = {f"NEUROWEAVER_{name.upper()}": str(value) for name, value in given.items() if value is not None}
    orchestrator = Orchestrator(cluster.address, database_url, tmp_path, **security(cluster))
    async with orchestrator.running():
        name = (await orchestrator.ask(orchestrator.request("secured"))).correlation_id
        await orchestrator.status("secured", "running", "accepted", "queued")

        async def command(*arguments: str, **more: str) -> Ended:
            address = str(orchestrator.http.base_url).removesuffix("/api/v1/")
            return await run(address, *arguments, **environment | more)

        assert name in (await command("jobs", "list")).out
        assert "as the catalogue says" in (await command("topics", "apply")).out
        assert (await command("migrate")).code == Exit.OK
        assert (await command("audit", "verify")).code == Exit.OK
        assert broker_of(await command("doctor", "--json"))["verdict"] == "good"

        wrong = {"NEUROWEAVER_KAFKA_SASL_PASSWORD": "wrong"}
        refused = await command("topics", "apply", **wrong)
        assert refused.code == Exit.UNREACHABLE
        assert "refuses NEUROWEAVER_KAFKA_SASL_USERNAME=admin" in refused.err
        assert (
            "refuses NEUROWEAVER_KAFKA_SASL_USERNAME=admin"
            in broker_of(await command("doctor", "--json", **wrong))["detail"]
        )


@pytest.mark.parametrize(
    ("protocol", "mechanism"), [("SASL_SSL", "PLAIN"), ("SASL_PLAINTEXT", "SCRAM-SHA-256"), ("SSL", "PLAIN")]
)
async def test_a_service_consumes_and_publishes_through_each_kind_of_listener(
    protocol: Protocol, mechanism: Mechanism, with_topics: SecuredKafka, database_url: str, tmp_path: Path
) -> None:
    cluster = with_topics.cluster(protocol, mechanism)
    toy = Toy(cluster.address, database_url, tmp_path, **security(cluster))
    await toy.create()
    async with toy.running():
        await toy.send(toy.requested("one"))

        async def answered() -> bool:
            return any(toy.prefix in str(record.key) for record in await read_all(with_topics.plain.address, JOBS.name))

        await until(answered)


@pytest.mark.parametrize(
    ("reached", "words"),
    [
        (lambda to: to.cluster("SASL_SSL", password="wrong"), "refuses NEUROWEAVER_KAFKA_SASL_USERNAME=admin with"),
        (lambda to: to.cluster("SASL_PLAINTEXT", "SCRAM-SHA-256", password="wrong"), "and its password"),
        (
            lambda to: to.cluster("SASL_SSL", "SCRAM-SHA-256"),
            "does not offer NEUROWEAVER_KAFKA_SASL_MECHANISM=SCRAM-SHA-256",
        ),
        (
            lambda to: to.cluster("SASL_SSL", cafile=to.folder / "other-ca.pem"),
            "not trusted by NEUROWEAVER_KAFKA_SSL_CAFILE=",
        ),
        (lambda to: to.cluster("SASL_SSL", cafile=None), "not trusted by the machine; see NEUROWEAVER_KAFKA_SSL_CAFILE"),
        (lambda to: to.cluster("SSL", certfile=None), "or it requires NEUROWEAVER_KAFKA_SSL_CERTFILE"),
        (lambda to: Cluster(to.cluster("SASL_SSL").address), "does not use NEUROWEAVER_KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        (
            lambda to: Cluster(to.cluster("SASL_PLAINTEXT").address),
            "does not use NEUROWEAVER_KAFKA_SECURITY_PROTOCOL=PLAINTEXT",
        ),
        (
            lambda to: Cluster(to.plain.address, to.cluster("SASL_SSL").security),
            "NEUROWEAVER_KAFKA_SECURITY_PROTOCOL=SASL_SSL",
        ),
        (lambda to: Cluster(to.plain.address, to.cluster("SASL_PLAINTEXT").security), "does not use SASL"),
        (
            lambda to: Cluster(to.cluster("SSL").address.replace("127.0.0.1", "localhost"), to.cluster("SSL").security),
            "Hostname",
        ),
        (lambda to: Cluster("127.0.0.1:1,127.0.0.1:2"), "127.0.0.1:1 refuses connections: no broker listens there; see"),
        (
            lambda to: Cluster("no-such-name.invalid:9092"),
            "the name no-such-name.invalid of NEUROWEAVER_KAFKA_BOOTSTRAP is not known",
        ),
    ],
)
async def test_what_keeps_us_out_is_said_with_the_setting_that_is_wrong(
    reached: Callable[[SecuredKafka], Cluster], words: str, secured: SecuredKafka
) -> None:
    with pytest.raises(Unreachable) as refused:
        await log.bounds(reached(secured), [REQUESTS.name])

    assert words in str(refused.value)
    assert PASSWORD not in f"{refused.value!r} {refused.value}"


async def test_of_several_addresses_one_that_works_is_enough(with_topics: SecuredKafka) -> None:
    right = with_topics.cluster("SASL_SSL")
    both = Cluster(f"127.0.0.1:1,{right.address}", right.security)

    assert await obstacle(both) is None
    assert await log.bounds(both, [REQUESTS.name])


async def test_services_need_no_more_rights_than_are_documented(
    with_topics: SecuredKafka, database_url: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """docs/deployment.md has them as a table, made from the catalogue: whoever writes a topic stands there."""

    async def ready(service: str) -> None:
        given = overrides(with_topics.cluster("SASL_SSL", user=service)) | {"home": tmp_path / service, "workers": 0}
        built = build(
            service, settings_of(service, **given, **{f"{service}_database_url": own_url(database_url, unique(service))})
        )
        for topic in CATALOGUE:
            await allow(with_topics.plain, service, "topic", topic.name, *rights(service, topic))
        await allow(with_topics.plain, service, "group", f"neuroweaver-{service}", "read")
        async with built.lifespan():
            await until(lambda: built.health.ready, what=lambda: built.health.missing)

    await asyncio.gather(*(ready(service) for service in SERVICES))


async def test_a_service_with_wrong_credentials_says_so_in_its_health(
    secured: SecuredKafka, database_url: str, tmp_path: Path
) -> None:
    cluster = secured.cluster("SASL_PLAINTEXT", "SCRAM-SHA-256", password="wrong")
    toy = Toy(cluster.address, database_url, tmp_path, **security(cluster))
    service = toy.service()
    async with service.lifespan():
        await until(
            lambda: "and its password" in service.health.missing.get("broker", ""),
            what=lambda: service.health.missing,
        )


async def test_no_secret_of_a_whole_run_is_said_or_kept(
    with_topics: SecuredKafka, database_url: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    secrets = {
        "database": "db/p@ss w:rd%1",
        "SASL": PASSWORD,
        "S3": "key/of+the=store-1234",
        "judge": "sk-judge-key-123456",
        "hub": "hf_token-123456",
    }
    role = unique("role").replace("-", "_")
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{secrets['database']}'")
    await connection.close()
    place = make_url(database_url).set(username=role, password=secrets["database"])
    databases = {service: place.set(database=unique(service)).render_as_string(hide_password=False) for service in SERVICES}
    given = overrides(with_topics.cluster("SASL_SSL")) | {"home": tmp_path / "home", "http_port": 0, "lease_seconds": 5}
    given |= {"database_url": place.set(database="postgres").render_as_string(hide_password=False)}
    given |= {f"{service}_database_url": url for service, url in databases.items()}
    environment = {f"NEUROWEAVER_{name.upper()}": str(value) for name, value in given.items() if value is not None}
    environment |= {
        "AWS_SECRET_ACCESS_KEY": secrets["S3"],
        "NEUROWEAVER_JUDGE_KEY_OURS": secrets["judge"],
        "HF_TOKEN": secrets["hub"],
    }
    request = {
        "job_id": unique("job"), "requester": "test", "pipeline": "sft", "base_model": "/proc/self/environ",
        "dataset": {"reference": "/proc/self/environ"}, "register_as": "x",
    }  # fmt: skip
    said = await whole_run(environment, tmp_path / "home", with_topics.plain.address, databases, request)
    assert "outside the folders that jobs may name" in said.texts[f"/api/v1/training/{request['job_id']}"]
    assert said.places_of(secrets) == []
    others = [path for path in (tmp_path / "home").rglob("*") if path.lstat().st_mode & 0o077]
    assert others == [], "everything in the stack's folder is its owner's alone"


def own_url(database_url: str, name: str) -> str:
    """A database of that name on the server."""
    return make_url(database_url).set(database=name).render_as_string(hide_password=False)


def security(cluster: Cluster) -> dict[str, Any]:
    """Settings of its security, the address left out."""
    return {name: value for name, value in overrides(cluster).items() if name != "kafka_bootstrap"}


def rights(service: str, topic: Topic) -> tuple[str, ...]:
    """What `service` may do with `topic`, as docs/deployment.md says."""
    reads = service in _READERS[topic.name] if topic.name in _READERS else topic is DISCARDS
    writes = service in topic.writers or (topic is REQUESTS and service == "orchestrator")
    return ("describe", "describe-configs", *(["read"] if reads else []), *(["write"] if writes else []))


_READERS = {
    REQUESTS.name: ("orchestrator",), JOBS.name: SERVICES, PROGRESS.name: ("orchestrator",), MODELS.name: ("registry",),
    DATASETS.name: ("registry",),
}  # fmt: skip


def broker_of(ended: Ended) -> dict[str, str]:
    """What `doctor` found of the broker."""
    return next(finding for finding in ended.json if finding["check"] == "broker")
