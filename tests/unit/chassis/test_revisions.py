"""Whether a database is at the schema of this code, without asking Alembic; and that Alembic would say the same."""

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from schemas.steps import SERVICES
from services.chassis.migrations import revisions
from services.chassis.migrations.migrate import alembic_config
from services.chassis.migrations.revisions import known, missing, unknown


@pytest.mark.parametrize("service", SERVICES)
def test_the_revisions_are_those_that_alembic_finds(service: str) -> None:
    scripts = ScriptDirectory.from_config(alembic_config(service))
    built_on = {one.revision: set(one._all_down_revisions) for one in scripts.walk_revisions()}
    assert known(service) == built_on
    assert missing(service, scripts.get_heads()) == set()
    assert missing(service, []) == known(service).keys()


@pytest.mark.parametrize(
    ("text", "parents"),
    [
        ("revision = 'a_2'\ndown_revision: str | None = 'a_1'\ndepends_on = ('b_1', 'b_2')\n", {"a_1", "b_1", "b_2"}),
        ('"""Not a revision = "x"."""\nrevision: str = "a_2"\ndown_revision = None\n', set()),
    ],
)
def test_a_revision_is_read_in_every_form_that_alembic_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, parents: set[str]
) -> None:
    (tmp_path / "a_2.py").write_text(text)
    monkeypatch.setattr(revisions, "version_folders", lambda _: [tmp_path])
    assert known("any") == {"a_2": parents}


@pytest.mark.parametrize("text", ["", 'down_revision = "a_1"\n', 'revision = "a" + str(2)\n', "revision = None\n"])
def test_a_revision_that_does_not_say_its_name_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "a_2.py").write_text(text)
    monkeypatch.setattr(revisions, "version_folders", lambda _: [tmp_path])
    with pytest.raises(ValueError):
        known("any")


def test_a_revision_brings_those_that_it_builds_on() -> None:
    assert missing("orchestrator", ["orchestrator_0001"]) == known("orchestrator").keys() - {
        "orchestrator_0001", "chassis_0001",
    }  # fmt: skip


def test_a_revision_that_the_code_does_not_have_is_unknown_and_brings_nothing() -> None:
    assert unknown("registry", ["registry_0001", "registry_9999"]) == {"registry_9999"}
    assert missing("registry", ["registry_9999"]) == known("registry").keys()
