"""An artifact that is altered or missing costs one attempt and says which; a store that is away is another matter."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepFault
from services.chassis.executor.attempts import attempt_ref
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.storage.artifacts.store import ArtifactStore
from tests.executor import Executor
from tests.steps import request
from tests.toy import until


@pytest.fixture
def artifact(executor: Executor, tmp_path: Path) -> ArtifactRef:
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").write_text("what was made")
    return ArtifactStore(executor.settings.artifacts_uri).put(source)


async def fault_of(executor: Executor, artifact: ArtifactRef) -> StepFault:
    ref = attempt_ref("a", "reading", 1)
    await executor.deliver(request("a", step="reading", inputs={"data": artifact}))

    async def failed() -> bool:
        return await executor.status(ref) == "failed"

    async with executor.working(SubprocessRunner("tests.child")):
        await until(failed)
    fault = (await executor.state(ref)).fault
    assert fault is not None
    return fault


def flip(artifact: ArtifactRef) -> None:
    (Path(artifact.uri) / "data").write_text("what was nade")


def remove(artifact: ArtifactRef) -> None:
    path = Path(artifact.uri)
    path.rename(path.with_name("gone"))


def unmount(store: Path) -> None:
    store.rename(store.with_name("unmounted"))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (flip, "file data: expected sha256 "),
        (remove, "file manifest.json: expected a file, found nothing: the artifact is missing"),
    ],
)
async def test_an_altered_or_missing_artifact_is_no_matter_for_a_retry(
    executor: Executor, artifact: ArtifactRef, harm: Callable[[ArtifactRef], None], words: str
) -> None:
    harm(artifact)
    fault = await fault_of(executor, artifact)
    assert fault.cause == "user", "it is not tried again until a person acts"
    (reason,) = fault.reasons
    assert (reason.field, reason.value) == ("inputs.data", artifact.uri)
    assert words in reason.message
    assert reason.remedy


async def test_a_store_that_is_away_says_nothing_about_the_artifact(executor: Executor, artifact: ArtifactRef) -> None:
    unmount(Path(executor.settings.artifacts_uri))
    fault = await fault_of(executor, artifact)
    assert fault.cause == "infrastructure", "it is tried again, as the policy says"
    assert f"StoreAway: artifact store of {artifact.uri}" in fault.message
