"""Whether a database is at the schema of this code, without asking Alembic; and that Alembic would say the same."""

import pytest
from alembic.script import ScriptDirectory

from schemas.steps import SERVICES
from services.chassis.migrate import alembic_config
from services.chassis.revisions import known, missing, unknown


@pytest.mark.parametrize("service", SERVICES)
def test_the_revisions_are_those_that_alembic_finds(service: str) -> None:
    scripts = ScriptDirectory.from_config(alembic_config(service))
    assert known(service).keys() == {script.revision for script in scripts.walk_revisions()}
    assert missing(service, scripts.get_heads()) == set()
    assert missing(service, []) == known(service).keys()


def test_a_revision_brings_those_that_it_builds_on() -> None:
    assert missing("orchestrator", ["orchestrator_0001"]) == known("orchestrator").keys() - {
        "orchestrator_0001", "chassis_0001",
    }  # fmt: skip


def test_a_revision_that_the_code_does_not_have_is_unknown_and_brings_nothing() -> None:
    assert unknown("registry", ["registry_0001", "registry_9999"]) == {"registry_9999"}
    assert missing("registry", ["registry_9999"]) == known("registry").keys()
