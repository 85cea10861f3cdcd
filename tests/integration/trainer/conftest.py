"""The trainer's tests share one tiny base model and one small task that it can learn."""

from pathlib import Path

import pytest

import services.trainer.child  # noqa: F401  # how threads wait has to be said before torch is imported
from schemas.artifacts import ArtifactRef
from tests.tiny_model import build
from tests.trainer import put_lines, row


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base model's folder."""
    return build(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def dataset(tmp_path: Path) -> ArtifactRef:
    return dataset_in(tmp_path)


def dataset_in(home: Path) -> ArtifactRef:
    """Store a `dataset` artifact with prompts of various lengths and answers that follow from them."""
    rows = [row(number, f"{'colour ' * (number % 4)}{number}?", "red." if number % 2 else "blue.") for number in range(24)]
    return put_lines(home, train=rows, validation=rows[:3], test=rows[3:9])
