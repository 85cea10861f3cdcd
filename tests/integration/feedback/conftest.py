"""A scripted chat endpoint, a tiny model, and steps on a store of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.feedback import Step
from tests.integration.feedback.endpoint import Chat, chat_endpoint


@pytest.fixture
def chat() -> Iterator[Chat]:
    """An OpenAI-compatible endpoint that the test scripts."""
    with chat_endpoint() as chat:
        yield chat


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits half a second before it tries again, and then twice as long."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """A feedback step on a store of its own."""
    return Step(tmp_path)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama."""
    from tests.tiny_model import build

    return build(tmp_path_factory.mktemp("tiny") / "model")
