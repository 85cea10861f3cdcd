"""The demo's deployment is ready, asked and retired, or the reason is told; the services are a stand-in."""

import json
from typing import Any

import httpx2
import pytest

from services.demo.deployed import NotDeployed, deployed
from services.registry.deploying.conditions import Condition
from services.registry.deploying.views import DeploymentView, RolloutAsked, ServedView

WISH = ServedView(generation=1, version="1.0.0", sha256="a" * 64, alias=None, by="demo", reason="")


class Services:
    """The routes that the demo asks; each look at the deployment gives the next of `views`."""

    def __init__(self, *views: DeploymentView, answer: int = 200) -> None:
        self.views, self.answer = list(views), answer
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if request.url.path == "/v1/chat/completions":
            said = {"choices": [{"message": {"content": '{"queue":"delivery"}'}}]}
            headers = {"x-neuroweaver-version": "support-router@1.0.0"}
            return httpx2.Response(self.answer, json=said, headers=headers)
        if request.method == "GET":
            return httpx2.Response(200, content=self.views.pop(0).model_dump_json())
        return httpx2.Response(202, json={})

    def client(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self), base_url="http://services")


def view(ready: bool, **fields: Any) -> DeploymentView:
    conditions = tuple(
        Condition(type=kind, status=status, reason=reason, message="m", observed_generation=1, at=None)
        for kind, status, reason in (
            ("Ready", "True" if ready else "False", "Loading"), ("Degraded", fields.pop("degraded", "False"), "Unloadable"),
        )
    )  # fmt: skip
    about = {
        "name": "demo", "model": "support-router", "version": "1.0.0" if ready else None, "generation": 1, "follow": False, "driver": "local",
        "rollout": RolloutAsked().rollout, "active": WISH if ready else None, "target": None if ready else WISH, "percent": None,
        "warm": None, "given_up": None, "conditions": conditions, "slots": (), "retired_at": None, "sequence": 1, "history": (), "judged": None,
    }  # fmt: skip
    return DeploymentView.model_validate({**about, **fields})


def run(services: Services) -> Any:
    with services.client() as http:
        return deployed(http, "support-router", "1.0.0", lambda _: None)


def test_what_was_made_is_deployed_asked_and_retired() -> None:
    services = Services(view(False), view(True))
    found = run(services)
    assert (found.name, found.version, json.loads(found.answer)) == (
        "demo", "support-router@1.0.0", {"queue": "delivery"},
    )  # fmt: skip
    assert services.asked[0] == "POST /api/v1/deployments"
    assert services.asked[-2:] == ["POST /v1/chat/completions", "DELETE /api/v1/deployments/demo"]


@pytest.mark.parametrize(
    ("services", "why"),
    [
        (Services(view(False, degraded="True")), "Unloadable"),
        (Services(view(False, target=None)), "not served"),
        (Services(view(True), answer=503), "503"),
    ],
)
def test_what_is_not_served_is_told_and_retired(services: Services, why: str) -> None:
    with pytest.raises(NotDeployed, match=why):
        run(services)
    assert services.asked[-1] == "DELETE /api/v1/deployments/demo"
