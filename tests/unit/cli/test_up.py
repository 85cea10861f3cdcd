"""What `up` says while services are not ready."""

from services.chassis.process.health import Health
from services.cli.up import _missing


def test_what_is_known_is_said_without_the_conditions_that_wait_for_it() -> None:
    health = Health("orchestrator", ("migrated", "restored", "broker"))
    assert _missing(health) == ["it is starting"]

    health.report("migrated", False, "the encoding is LATIN1")
    assert _missing(health) == ["migrated: the encoding is LATIN1"]

    for name in health.requires:
        health.report(name, True)
    assert _missing(health) == []
