"""The compose file is a valid one, names only settings that exist, and opens nothing to the network."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic_settings import BaseSettings

from schemas.steps import SERVICES
from services.chassis.serving.web.settings import HttpSettings
from services.chassis.settings import ServiceSettings
from services.chassis.storage.sources.settings import SourceSettings
from services.cli.serve import settings_of
from services.cli.settings import CliSettings

_HERE = Path(__file__).parent
_DEPLOY = _HERE.parents[2] / "deploy"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((_DEPLOY / "compose.yaml").read_text())
    return loaded


def known_variables() -> set[str]:
    classes: list[type[BaseSettings]] = [
        ServiceSettings,
        CliSettings,
        HttpSettings,
        *(type(settings_of(name)) for name in SERVICES),
    ]
    sources = {f"NEUROWEAVER_SOURCES_{field.upper()}" for field in SourceSettings.model_fields}
    return {f"NEUROWEAVER_{field.upper()}" for settings in classes for field in settings.model_fields} | sources


def environments(compose: dict[str, Any]) -> Iterator[str]:
    for service in compose["services"].values():
        yield from service.get("environment", {})


def test_it_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads((_HERE / "vendor" / "compose-spec.json").read_text())
    jsonschema.validate(compose, schema)


def test_the_four_services_run_beside_kafka_and_postgres(compose: dict[str, Any]) -> None:
    assert set(SERVICES) | {"kafka", "postgres", "topics"} == set(compose["services"])
    for name in SERVICES:
        service = compose["services"][name]
        assert service["command"] == ["serve", name]
        assert service["depends_on"]["topics"]["condition"] == "service_completed_successfully"
        assert "healthcheck" in service


def test_the_image_of_the_registry_can_serve_versions(compose: dict[str, Any]) -> None:
    assert {"registry", "serving"} <= set(compose["services"]["registry"]["build"]["args"]["EXTRAS"].split(","))


def test_every_variable_is_a_setting_that_exists(compose: dict[str, Any]) -> None:
    ours = {name for name in environments(compose) if name.startswith("NEUROWEAVER_")}
    assert ours
    assert ours <= known_variables()
    in_image = set(re.findall(r"NEUROWEAVER_\w+", (_DEPLOY / "Dockerfile").read_text()))
    assert in_image
    assert in_image <= known_variables()


def test_containers_may_call_each_other_by_name(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if service.get("command", [""])[0] == "serve":
            assert name in service["environment"]["NEUROWEAVER_HTTP_HOSTS"].split(",")


def test_ports_are_bound_to_loopback_and_differ(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_only_those_who_train_judge_or_serve_carry_torch(compose: dict[str, Any]) -> None:
    extras = {name: compose["services"][name]["build"]["args"]["EXTRAS"].split(",") for name in SERVICES}
    assert {name for name, given in extras.items() if {"trainer", "local-judge", "serving"} & set(given)} == {
        "trainer",
        "feedback",
        "registry",
    }
