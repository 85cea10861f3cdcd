"""Two deployments with a database each write as the orchestrator: none of it is taken for one's own in silence."""

import pytest

from schemas.topics import JOBS, REQUESTS
from services.chassis.kernel.numbering import Numbered
from services.chassis.kernel.transaction.batch import RecordFailure
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.replay.checks import ReplayRefused
from services.orchestrator.domain.job import JobDomain
from tests.simulation.promises import Broken
from tests.simulation.world import POLICY, World

SEEDS = 25
ENDINGS = {"another writer", "one always came first", "replayed before it read"}


def told(seed: int) -> str:
    """How a run with two orchestrators ends: with the words about another writer, or with none, or with a replay for one that has read
    nothing yet, which takes what the other said for its own."""
    world = World(seed, poisonous=False)
    second = world.service("orchestrator-2", JobDomain(POLICY), (REQUESTS, JOBS))
    world.services.append(second)
    try:
        world.run()
    except (Broken, ReplayRefused, RecordFailure) as error:
        if "is only in the replay" in str(error) and not second.database.rows("job"):
            return "replayed before it read"
        return "another writer" if "another deployment writes as" in str(error) else str(error)
    return "one always came first"


def test_a_second_deployment_is_told_by_its_ids_before_anything_else_goes_wrong() -> None:
    found = [told(seed) for seed in range(SEEDS)]
    assert set(found) <= ENDINGS
    assert found.count("another writer") > SEEDS / 2


def test_without_the_ids_it_would_be_taken_for_one_self(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_number_alone(self: UnitOfWork, owner: object, event: object, _logged: object) -> Numbered:
        sequence = self.rows[owner].sequence  # type: ignore[index]
        number = event.sequence  # type: ignore[attr-defined]
        return Numbered.KNOWN if number <= sequence else Numbered.NEXT if number == sequence + 1 else Numbered.EARLY

    monkeypatch.setattr(UnitOfWork, "_numbered", by_number_alone)
    found = [told(seed) for seed in range(SEEDS)]
    assert set(found) - ENDINGS
