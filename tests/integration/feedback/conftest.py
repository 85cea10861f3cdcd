"""A scripted chat endpoint, a tiny model, and steps on a store of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.feedback import Step
from tests.integration.feedback.endpoint import Chat, chat_endpoint


@pytest.fixture
def chat() -> Iterator[Chat]:
    """Run an OpenAI-compatible endpoint that the test controls."""
    with chat_endpoint() as chat:
        yield chat


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the SDK's waits before retries, which begin at half a second and double."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """Return a feedback step with its own store."""
    return Step(tmp_path)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random Llama."""
    from tests.tiny_model import build

    return build(tmp_path_factory.mktemp("tiny") / "model")
