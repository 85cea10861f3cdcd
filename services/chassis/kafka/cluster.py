"""Defines how to reach Kafka: its address, and the security that its listeners require.

Every client takes a `Cluster`, never a bare address, so that none can omit a password or a certificate authority.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from schemas.base import Frozen

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
NOTICED_MS = 10_000
"""The greatest age of metadata: added partitions, which may have events of running jobs, are noticed within this time."""


class Security(Frozen):
    """What a listener requires; `KafkaSettings` builds it and refuses combinations that cannot work."""

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = "PLAIN"
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    cafile: Path | None = Field(default=None, description="PEM; null: the authorities that the machine trusts.")
    certfile: Path | None = Field(
        default=None, description="PEM of the client's certificate chain, where it must show one."
    )
    keyfile: Path | None = None
    key_password: str | None = Field(default=None, repr=False)

    @property
    def encrypted(self) -> bool:
        """Whether connections use TLS."""
        return self.protocol.endswith("SSL")

    @property
    def authenticated(self) -> bool:
        """Whether the client authenticates with a password."""
        return self.protocol.startswith("SASL")

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context, which verifies the broker's name and certificate chain.

        Raises OSError for unusable files.
        """
        if not self.encrypted:
            return None
        made = ssl.create_default_context(cafile=self.cafile)
        if self.certfile:
            made.load_cert_chain(self.certfile, self.keyfile, self.key_password or "")
        return made


PLAINTEXT = Security()


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kafka cluster's address and security. Its text form has the address only."""

    address: str
    """host:port list of brokers."""
    security: Security = PLAINTEXT

    def connection(self) -> Mapping[str, Any]:
        """Arguments for every aiokafka client. Raises OSError for certificates that cannot be read any more."""
        security = self.security
        arguments: dict[str, Any] = {"bootstrap_servers": self.address, "security_protocol": security.protocol}
        if security.encrypted:
            arguments["ssl_context"] = security.context()
        if security.authenticated:
            arguments["sasl_mechanism"] = security.mechanism
            arguments["sasl_plain_username"] = security.username
            arguments["sasl_plain_password"] = security.password
        return arguments

    def __str__(self) -> str:
        return self.address
