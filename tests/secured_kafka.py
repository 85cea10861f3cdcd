"""A real broker whose listeners ask for passwords and certificates, beside the plain one that its keeper uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from services.chassis.kafka.cluster import Cluster, Mechanism, Protocol, Security
from services.devstack import jars
from services.devstack.java import find_java
from services.devstack.kafka import KafkaServer
from services.devstack.ports import LOOPBACK, keep_ports
from services.devstack.settings import DevStackSettings
from tests.certificates import certificates

LISTENERS: tuple[Protocol, ...] = ("SSL", "SASL_SSL", "SASL_PLAINTEXT")
PASSWORD = "p@ss word/100%"
_RESOURCES = {"topic": 2, "group": 3}
_OPERATIONS = {"read": 3, "write": 4, "describe": 8, "describe-configs": 10}
_LITERAL, _PREFIXED, _ALLOW = 3, 4, 3
_LOGIN = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class SecuredKafka:
    """One running broker. `admin` and the services authenticate with passwords; `client.pem` is the certificate of
    `admin`."""

    plain: Cluster
    """The listener of the test itself, which may do everything."""
    ports: dict[str, int]
    folder: Path

    def cluster(
        self, protocol: Protocol, mechanism: Mechanism = "PLAIN", user: str = "admin", **security: object
    ) -> Cluster:
        """Return the cluster for the listener of `protocol`; `security` replaces correct settings."""
        right: dict[str, object] = {"protocol": protocol, "mechanism": mechanism}
        if protocol.startswith("SASL"):
            right |= {"username": user, "password": PASSWORD}
        if protocol.endswith("SSL"):
            right |= {"cafile": self.folder / "ca.pem"}
        if protocol == "SSL":
            right |= {"certfile": self.folder / "client.pem"}
        return Cluster(f"{LOOPBACK}:{self.ports[protocol]}", Security.model_validate(right | security))


@contextmanager
def secured_kafka(folder: Path, users: tuple[str, ...]) -> Iterator[SecuredKafka]:
    """Run a broker that knows `users` and lets only the test and `admin` do what no rule allows."""
    folder.mkdir(parents=True)
    certificates(folder)
    settings = DevStackSettings(home=folder, kafka_bootstrap=None)
    found = jars.install(settings.cache, lambda _: None)
    server = KafkaServer(folder / "kafka", folder / "kafka.log", find_java(None), found, heap_mb=256)
    kept = keep_ports(folder / "kafka" / "ports.json", ("broker", "controller", *LISTENERS))
    server.properties = tuple(_properties(folder, kept, users))
    server.format_options = tuple(
        part for user in users for part in ("--add-scram", f"SCRAM-SHA-256=[name={user},password={PASSWORD}]")
    )
    server.start()
    try:
        yield SecuredKafka(Cluster(server.bootstrap), kept, folder)
    finally:
        server.stop()


def _properties(folder: Path, ports: dict[str, int], users: tuple[str, ...]) -> Iterator[str]:
    at = {name: f"{LOOPBACK}:{port}" for name, port in ports.items()}
    listeners = [f"PLAINTEXT://{at['broker']}", *(f"{name}://{at[name]}" for name in LISTENERS)]
    yield f"listeners={','.join(listeners)},CONTROLLER://{at['controller']}"
    yield f"advertised.listeners={','.join(listeners)}"
    yield "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT," + ",".join(
        f"{name}:{name}" for name in LISTENERS
    )
    yield "inter.broker.listener.name=PLAINTEXT"
    for name in ("SSL", "SASL_SSL"):
        yield f"listener.name.{name.lower()}.ssl.keystore.type=PEM"
        yield f"listener.name.{name.lower()}.ssl.keystore.location={folder / 'server.pem'}"
        yield f"listener.name.{name.lower()}.ssl.truststore.type=PEM"
        yield f"listener.name.{name.lower()}.ssl.truststore.location={folder / 'ca.pem'}"
    yield "listener.name.ssl.ssl.client.auth=required"
    known = " ".join(f'user_{user}="{PASSWORD}"' for user in users)
    yield "listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN"
    yield f"listener.name.sasl_ssl.plain.sasl.jaas.config={_LOGIN}.plain.PlainLoginModule required {known};"
    yield "listener.name.sasl_plaintext.sasl.enabled.mechanisms=SCRAM-SHA-256"
    yield f"listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={_LOGIN}.scram.ScramLoginModule required;"
    yield "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"
    yield "super.users=User:ANONYMOUS;User:admin;User:CN=admin"


async def allow(cluster: Cluster, user: str, resource: str, name: str, *operations: str) -> None:
    """Allow `user` an operation on the topic or group `name`; a name that ends in `*` is a prefix."""
    admin = AIOKafkaAdminClient(**cluster.connection())
    await admin.start()
    try:
        pattern = _PREFIXED if name.endswith("*") else _LITERAL
        for operation in operations:
            request = CreateAclsRequest(
                _RESOURCES[resource], name.rstrip("*"), pattern, f"User:{user}", "*", _OPERATIONS[operation], _ALLOW
            )
            answer = await admin._send_request(request)
            assert all(code == 0 for code, *_ in answer.creation_responses), answer
    finally:
        await admin.close()
