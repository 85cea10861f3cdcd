"""Determines why no broker can be reached, because aiokafka reports the failure but only logs its reason."""

import asyncio
import socket
import ssl
from typing import Protocol

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from services.chassis.kafka.cluster import Cluster
from services.chassis.process.transient import described

_SECONDS = 5.0
_SETTING = "NEUROWEAVER_KAFKA_"


class Unreachable(KafkaConnectionError):  # type: ignore[misc]
    """No broker of the cluster accepts the connection; the message says why for each broker."""

    def __str__(self) -> str:
        return str(self.args[0])


class _Client(Protocol):
    async def start(self) -> None: ...


async def start(client: _Client, cluster: Cluster) -> None:
    """Start an aiokafka client. Raises Unreachable, and other errors of the broker unchanged."""
    try:
        await client.start()
    except KafkaConnectionError as error:
        raise Unreachable(await obstacle(cluster) or described(error)) from error


async def obstacle(cluster: Cluster) -> str | None:
    """Return why no broker in the address can be used; None as soon as one answers and can be used."""
    words = []
    for host, port, _ in collect_hosts(cluster.address, randomize=False):
        place = f"Kafka at {host}:{port}"
        try:
            async with asyncio.timeout(_SECONDS):
                brokers = await _ask(cluster, host, port)
        except Exception as error:
            words.append(_said(cluster, host, place, error))
            continue
        away = [broker for broker in brokers if not await _listens(*broker)]
        if len(away) < len(brokers) or not brokers:
            return None
        names = ", ".join(f"{name}:{number}" for name, number in away)
        words.append(
            f"{place} answers, but tells clients to use {names}, which cannot be reached: see advertised.listeners"
        )
    return "; ".join(words)


async def _ask(cluster: Cluster, host: str, port: int) -> list[tuple[str, int]]:
    """Connect, authenticate, and request the list of brokers, which needs authentication if the listener is secured."""
    arguments = {name: value for name, value in cluster.connection().items() if name != "bootstrap_servers"}
    connection = await create_conn(host, port, request_timeout_ms=int(_SECONDS * 1000), **arguments)
    try:
        return [(broker[1], broker[2]) for broker in (await connection.send(MetadataRequest([]))).brokers]
    finally:
        connection.close()


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _said(cluster: Cluster, host: str, place: str, error: Exception) -> str:
    security = cluster.security
    protocol = f"{_SETTING}SECURITY_PROTOCOL={security.protocol}"
    match error:
        case ssl.SSLCertVerificationError(verify_message=reason):
            trusted = (
                f"{_SETTING}SSL_CAFILE={security.cafile}" if security.cafile else f"the machine; see {_SETTING}SSL_CAFILE"
            )
            return f"{place} shows a certificate that is not trusted by {trusted}: {reason}"
        case ssl.SSLError():
            return f"{place} does not agree on TLS; its listener must use {protocol} ({described(error)})"
        case socket.gaierror():
            return f"the name {host} of {_SETTING}BOOTSTRAP is not known: {error.strerror}"
        case ConnectionRefusedError():
            return f"{place} refuses connections: no broker listens there; see {_SETTING}BOOTSTRAP"
        case errors.SaslAuthenticationFailed():
            user = f"{_SETTING}SASL_USERNAME={security.username} with {_SETTING}SASL_MECHANISM={security.mechanism}"
            return f"{place} refuses {user} and its password"
        case errors.UnsupportedSaslMechanismError():
            return f"{place} does not offer {_SETTING}SASL_MECHANISM={security.mechanism} on this listener"
        case errors.IllegalSaslStateError() | errors.UnsupportedVersionError() if security.authenticated:
            return f"{place} does not use SASL: its listener does not use {protocol}"
        case TimeoutError():
            return f"{place} does not answer within {_SECONDS:g} s; its listener must use {protocol}"
        case ConnectionError() | KafkaConnectionError():
            client = "" if not security.encrypted or security.certfile else f", or it requires {_SETTING}SSL_CERTFILE"
            return f"{place} closes the connection: its listener does not use {protocol}{client}"
    return f"{place}: {described(error)}"
