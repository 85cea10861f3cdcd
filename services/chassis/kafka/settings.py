"""Defines Kafka's address and security settings for services and commands, and refuses combinations that cannot work."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.chassis.kafka.cluster import Cluster, Mechanism, Protocol, Security

_PREFIX = "NEUROWEAVER_KAFKA_"


_PLACE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:,\[\]]+)(:\d{1,5})?")


def _places(addresses: str) -> str:
    for place in addresses.split(","):
        if not _PLACE.fullmatch(place.strip()):
            raise ValueError(f"{place.strip()!r} is not host:port; separate several by commas")
    return addresses


Bootstrap = Annotated[str, AfterValidator(_places)]
"""A setting that names brokers: host:port list."""


class KafkaSettings(BaseSettings):
    """Read from `NEUROWEAVER_KAFKA_*`."""

    model_config = SettingsConfigDict(env_prefix="NEUROWEAVER_", extra="ignore", frozen=True, hide_input_in_errors=True)

    kafka_security_protocol: Protocol = Field(default="PLAINTEXT", description="Protocol of the brokers' listener.")
    kafka_sasl_mechanism: Mechanism | None = Field(default=None, description="SASL mechanism.")
    kafka_sasl_username: str | None = Field(default=None, description="SASL user of this service.")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="Password of that user.")
    kafka_sasl_password_file: Path | None = Field(
        default=None, description="File with that password, instead of the password itself."
    )
    kafka_ssl_cafile: Path | None = Field(
        default=None, description="PEM of the authorities that may sign a broker's certificate; null: those of the machine."
    )
    kafka_ssl_certfile: Path | None = Field(default=None, description="PEM of the client's certificate chain.")
    kafka_ssl_keyfile: Path | None = Field(
        default=None, description="PEM of the certificate's key; null: the certificate's file contains it."
    )
    kafka_ssl_key_password: SecretStr | None = Field(default=None, description="Password of that key.")

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        if reasons := self._refusals():
            raise ValueError("; ".join(reasons))
        return self

    def _refusals(self) -> list[str]:
        protocol = self.kafka_security_protocol
        reasons = []
        sasl = {
            name: getattr(self, f"kafka_sasl_{name}") for name in ("mechanism", "username", "password", "password_file")
        }
        tls = {name: getattr(self, f"kafka_ssl_{name}") for name in ("cafile", "certfile", "keyfile", "key_password")}
        if protocol.startswith("SASL"):
            reasons += [
                f"{_PREFIX}SECURITY_PROTOCOL={protocol} needs {_PREFIX}SASL_{name.upper()}"
                for name in ("mechanism", "username")
                if not sasl[name]
            ]
            if (sasl["password"] is None) == (sasl["password_file"] is None):
                reasons.append(
                    f"{_PREFIX}SECURITY_PROTOCOL={protocol} needs {_PREFIX}SASL_PASSWORD or {_PREFIX}SASL_PASSWORD_FILE, "
                    "exactly one of them"
                )
        else:
            reasons += _idle("SASL", sasl, protocol, "SASL_SSL or SASL_PLAINTEXT")
        if not protocol.endswith("SSL"):
            return reasons + _idle("SSL", tls, protocol, "SSL or SASL_SSL")
        if tls["certfile"] is None:
            reasons += [
                f"{_PREFIX}SSL_{name.upper()} needs {_PREFIX}SSL_CERTFILE"
                for name in ("keyfile", "key_password")
                if tls[name] is not None
            ]
        return reasons or self._unusable_files()

    def _unusable_files(self) -> list[str]:
        named = {"SASL_PASSWORD_FILE": self.kafka_sasl_password_file, "SSL_CAFILE": self.kafka_ssl_cafile}
        named |= {"SSL_CERTFILE": self.kafka_ssl_certfile, "SSL_KEYFILE": self.kafka_ssl_keyfile}
        for name, path in named.items():
            try:
                if path is not None:
                    path.read_bytes()
            except OSError as error:
                return [f"{_PREFIX}{name}={path} cannot be read: {error.strerror or error}"]
        try:
            self.kafka_security.context()
        except OSError as error:
            return [
                f"{_PREFIX}SSL_CAFILE, _CERTFILE or _KEYFILE is not a usable PEM file, or the key's password is wrong: "
                f"{error}"
            ]
        return []

    @property
    def kafka_security(self) -> Security:
        """The value that connections use. Reads the password's file if one is named."""
        password = self.kafka_sasl_password.get_secret_value() if self.kafka_sasl_password else None
        if self.kafka_sasl_password_file:
            password = self.kafka_sasl_password_file.read_text().rstrip("\r\n")
        return Security(
            protocol=self.kafka_security_protocol,
            mechanism=self.kafka_sasl_mechanism or "PLAIN",
            username=self.kafka_sasl_username,
            password=password,
            cafile=self.kafka_ssl_cafile,
            certfile=self.kafka_ssl_certfile,
            keyfile=self.kafka_ssl_keyfile,
            key_password=self.kafka_ssl_key_password.get_secret_value() if self.kafka_ssl_key_password else None,
        )


def overrides(cluster: Cluster) -> dict[str, Any]:
    """Return the settings that name `cluster`, whatever the environment contains."""
    security = cluster.security
    return {
        "kafka_bootstrap": cluster.address,
        "kafka_security_protocol": security.protocol,
        "kafka_sasl_mechanism": security.mechanism if security.authenticated else None,
        "kafka_sasl_username": security.username,
        "kafka_sasl_password": security.password,
        "kafka_sasl_password_file": None,
        "kafka_ssl_cafile": security.cafile,
        "kafka_ssl_certfile": security.certfile,
        "kafka_ssl_keyfile": security.keyfile,
        "kafka_ssl_key_password": security.key_password,
    }


def _idle(kind: str, given: dict[str, object], protocol: str, wanted: str) -> list[str]:
    """Settings that would have no effect, so that a user would assume a protection that does not exist."""
    return [
        f"{_PREFIX}{kind}_{name.upper()} has no effect with {_PREFIX}SECURITY_PROTOCOL={protocol}: set that to {wanted}"
        for name, value in given.items()
        if value is not None
    ]
