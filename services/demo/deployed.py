"""Deploys what the demo made, asks it one question at the address for callers, and retires the deployment again."""

import time
from collections.abc import Callable

import httpx2

from schemas.base import Frozen
from services.demo.recipe import SYSTEM_PROMPT
from services.registry.deploying.views import DeploymentView

NAME = "demo"
QUESTION = "My laptop has not arrived."
_BY = {"by": "neuroweaver demo", "reason": "The demo shows what it made."}
_DEADLINE_SECONDS = 300.0
_ANSWER_TOKENS = 80


class DeploymentFound(Frozen):
    """How the deployment went."""

    name: str
    version: str
    """`name@version` of what answered, as the answer said."""
    ready_seconds: float
    """From the wish to the deployment that is ready."""
    answer: str


class NotDeployed(Exception):
    """The version did not get ready, or did not answer; the text says why."""


def deployed(http: httpx2.Client, model: str, version: str, sleep: Callable[[float], None] = time.sleep) -> DeploymentFound:
    """Deploy a version, ask it and retire it. Raises NotDeployed; `http` has the base address of the services."""
    begun = time.monotonic()
    wish = {"name": NAME, "model": f"{model}@{version}", "rollout": {"deadline_seconds": _DEADLINE_SECONDS}, **_BY}
    try:
        _sent(http.post("/api/v1/deployments", json=wish))
        try:
            _await(http, version, sleep)
            seconds = time.monotonic() - begun
            answered = _sent(http.post("/v1/chat/completions", json=_question(), timeout=120.0))
        finally:
            http.delete(f"/api/v1/deployments/{NAME}", params=_BY)
    except httpx2.TransportError as error:
        raise NotDeployed(f"the services do not answer ({type(error).__name__})") from error
    answer = str(answered.json()["choices"][0]["message"]["content"])
    return DeploymentFound(
        name=NAME, version=answered.headers["x-neuroweaver-version"], ready_seconds=round(seconds, 1), answer=answer
    )


def _await(http: httpx2.Client, version: str, sleep: Callable[[float], None]) -> None:
    while True:
        view = DeploymentView.model_validate_json(_sent(http.get(f"/api/v1/deployments/{NAME}")).content)
        states = {one.type: one for one in view.conditions}
        if view.version == version and view.target is None and states["Ready"].status == "True":
            return
        degraded = states["Degraded"] if states["Degraded"].status == "True" else None
        if view.target is None or degraded is not None:
            why = view.given_up or degraded
            raise NotDeployed("it is not served" if why is None else f"{why.reason}: {why.message}")
        sleep(0.5)


def _question() -> dict[str, object]:
    messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": QUESTION}]
    return {"model": NAME, "messages": messages, "temperature": 0, "max_tokens": _ANSWER_TOKENS}


def _sent(answer: httpx2.Response) -> httpx2.Response:
    if not answer.is_success:
        raise NotDeployed(f"{answer.request.url.path} answers {answer.status_code}: {answer.text[:500]}")
    return answer
