"""Ready says which condition is missing and why; live knows nothing of the database."""

from datetime import timedelta

from services.chassis.process.health import LIVE_SECONDS, Health
from services.chassis.process.metrics import REGISTRY


def test_a_condition_that_was_never_reported_does_not_hold() -> None:
    health = Health("toy", ("database",))
    assert not health.ready
    assert health.missing == {"database": "not yet known"}


def test_ready_needs_every_required_condition_and_names_the_missing_one() -> None:
    health = Health("toy", ("database", "broker"))
    health.report("database", True)
    health.report("broker", False, "silent for 20 s")
    assert health.missing == {"broker": "silent for 20 s"}
    health.report("broker", True)
    assert health.ready


def test_the_time_of_a_condition_moves_only_when_it_changes_sides() -> None:
    health = Health("toy", ("database",))
    health.report("database", False, "refused")
    since = health.conditions["database"].since
    assert not health.report("database", False, "still refused")
    assert health.conditions["database"].since == since
    assert health.conditions["database"].reason == "still refused"
    assert health.report("database", True)
    assert health.conditions["database"].since >= since


def test_a_condition_says_how_often_it_changed_sides_in_the_last_hour() -> None:
    health = Health("toy_changes", ("database",))
    for holds in (True, True, False, True, False):
        health.report("database", holds, "restarted")
    assert health.changes("database") == 3
    health._changes["database"][0] -= timedelta(hours=1)
    assert health.changes("database") == 2


def test_metrics_say_what_the_conditions_say() -> None:
    def measured(name: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"service": "toy_measured", "condition": "database"})

    health = Health("toy_measured", ("database",))
    assert measured("neuroweaver_condition") == 0
    health.report("database", True)
    assert (measured("neuroweaver_condition"), measured("neuroweaver_condition_changes_total")) == (1, None)
    health.report("database", False, "refused")
    assert (measured("neuroweaver_condition"), measured("neuroweaver_condition_changes_total")) == (0, 1)


def test_live_is_the_loop_alone() -> None:
    health = Health("toy", ("database",))
    assert health.live
    health._ticked -= LIVE_SECONDS + 1
    assert not health.live
    health.tick()
    assert health.live
