"""The security of Kafka's listeners is either complete or refused at the start, in words; passwords are shown nowhere."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.chassis.kafka.cluster import Cluster, Security
from services.chassis.kafka.settings import overrides
from services.chassis.settings import ServiceSettings
from services.cli.failures import explain
from services.devstack.settings import DevStackSettings

_SCRAM: dict[str, Any] = {
    "kafka_security_protocol": "SASL_PLAINTEXT",
    "kafka_sasl_mechanism": "SCRAM-SHA-256",
    "kafka_sasl_username": "u",
}


def test_without_a_word_about_security_the_connection_is_plain() -> None:
    assert dict(ServiceSettings(kafka_bootstrap="k:9092").cluster.connection()) == {
        "bootstrap_servers": "k:9092", "security_protocol": "PLAINTEXT",
    }  # fmt: skip


def test_sasl_settings_become_what_aiokafka_takes() -> None:
    settings = ServiceSettings(kafka_bootstrap="k:9092", kafka_sasl_password="s3cret", **_SCRAM)

    assert dict(settings.cluster.connection()) == {
        "bootstrap_servers": "k:9092", "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "u", "sasl_plain_password": "s3cret",
    }  # fmt: skip


def test_a_password_comes_out_of_a_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")

    assert ServiceSettings(kafka_sasl_password_file=tmp_path / "password", **_SCRAM).cluster.security.password == "s3cret"


def test_no_password_is_shown() -> None:
    security = Security(protocol="SASL_SSL", username="u", password="s3cret", key_password="s3cret")
    settings = ServiceSettings(kafka_sasl_password="s3cret", **_SCRAM)

    for shown in (security, Cluster("k:9092", security), settings):
        assert "s3cret" not in f"{shown} {shown!r}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "needs NEUROWEAVER_KAFKA_SASL_MECHANISM"),
        ({"kafka_security_protocol": "SASL_SSL"}, "needs NEUROWEAVER_KAFKA_SASL_PASSWORD or NEUROWEAVER_KAFKA_SASL_PASSWORD_FILE"),
        ({**_SCRAM, "kafka_sasl_password": "s3cret", "kafka_sasl_password_file": "/p"}, "exactly one of them"),
        ({"kafka_sasl_password": "s3cret"}, "NEUROWEAVER_KAFKA_SASL_PASSWORD has no effect with"),
        ({"kafka_ssl_cafile": "/ca.pem"}, "set that to SSL or SASL_SSL"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_keyfile": "/k"}, "SSL_KEYFILE needs NEUROWEAVER_KAFKA_SSL_CERTFILE"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_cafile": "/none.pem"}, "SSL_CAFILE=/none.pem cannot be read: No such file"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_cafile": __file__}, "not a usable PEM file"),
        ({"kafka_bootstrap": "k-1:9092,k-2:9o92"}, "NEUROWEAVER_KAFKA_BOOTSTRAP=k-1:9092,k-2:9o92: 'k-2:9o92' is not host:port"),
        ({"kafka_bootstrap": "SASL_SSL://k:9092"}, "is not host:port"),
        ({"kafka_bootstrap": ""}, "is not host:port"),
        ({"kafka_security_protocol": "TLS"}, "NEUROWEAVER_KAFKA_SECURITY_PROTOCOL=TLS: Input should be 'PLAINTEXT', 'SSL'"),
        ({**_SCRAM, "kafka_sasl_mechanism": "GSSAPI"}, "NEUROWEAVER_KAFKA_SASL_MECHANISM=GSSAPI: Input should be 'PLAIN'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_setting_that_is_wrong(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ServiceSettings(**given)

    explained = explain(refused.value)
    assert explained is not None
    assert words in explained[1]
    assert "s3cret" not in explained[1] + str(refused.value)


def test_a_secured_cluster_must_be_named() -> None:
    with pytest.raises(ValidationError, match="needs NEUROWEAVER_KAFKA_BOOTSTRAP"):
        DevStackSettings(kafka_bootstrap=None, kafka_sasl_password="s3cret", **_SCRAM)


def test_settings_made_for_a_cluster_name_it_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROWEAVER_KAFKA_SASL_PASSWORD_FILE", "/elsewhere")
    cluster = ServiceSettings(
        kafka_bootstrap="k:9092", kafka_sasl_password="s3cret", kafka_sasl_password_file=None, **_SCRAM
    ).cluster

    assert ServiceSettings(**overrides(cluster)).cluster == cluster


def test_every_client_is_made_from_a_cluster_so_that_none_forgets_its_security() -> None:
    services = Path(__file__).parents[3] / "services"
    makers = {path.name for path in services.rglob("*.py") if "bootstrap_servers" in path.read_text()}

    assert makers == {"cluster.py", "reach.py"}
