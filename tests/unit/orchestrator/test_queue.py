"""The queue as its readers see it: who comes before whom, and when each starts, as far as anything was measured."""

from datetime import UTC, datetime, timedelta
from typing import Any

from services.orchestrator.queue import Duration, Durations, OpenAttempt, forecast, ordered
from services.orchestrator.queue_view import queue_view

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def attempt(job_id: str, *, age: float = 0, **fields: Any) -> OpenAttempt:
    """An attempt that has waited for `age` seconds."""
    at = NOW - timedelta(seconds=age)
    given: dict[str, Any] = {
        "step": "train", "attempt": 1, "kind": "train", "base_model": "/m", "requester": "a", "priority": 0, "requested_at": at,
        "not_before": None, "started_at": None, "worker": None, "begun": False, "eta_seconds": None,
        "eta_at": None,
    }  # fmt: skip
    return OpenAttempt(job_id=job_id, **(given | fields))


def running(job_id: str, *, since: float, **fields: Any) -> OpenAttempt:
    return attempt(job_id, age=since, started_at=NOW - timedelta(seconds=since), **fields)


def names(attempts: list[OpenAttempt]) -> str:
    return " ".join(one.job_id for one in attempts)


def measured(*kinds: str, seconds: float = 100) -> Durations:
    return Durations(Duration(kind, "/m", seconds) for kind in kinds)


def starts(*attempts: OpenAttempt, durations: Durations) -> list[float | None]:
    _, waiting = forecast(attempts, durations, NOW)
    return [None if one.at is None else (one.at - NOW).total_seconds() for one in waiting]


def test_priority_comes_before_age() -> None:
    assert names(ordered([attempt("old", age=9), attempt("urgent", priority=5), attempt("older", age=10)])) == (
        "urgent older old"
    )


def test_requesters_take_turns_however_many_jobs_one_of_them_has() -> None:
    many = [attempt(f"a{number}", age=50 - number) for number in range(3)]
    assert names(ordered([*many, attempt("b0", age=1, requester="b"), attempt("b1", requester="b")])) == "a0 b0 a1 b1 a2"


def test_a_requester_whose_job_runs_has_had_its_turn() -> None:
    assert names(ordered([running("a0", since=60), attempt("a1", age=50), attempt("b0", age=1, requester="b")])) == "b0 a1"


def test_the_next_step_of_a_job_that_has_begun_waits_for_no_further_turn() -> None:
    assert names(ordered([attempt("a1", age=5), attempt("a0", age=9, begun=True), attempt("a2", age=1)])) == "a0 a1 a2"


def test_a_start_follows_from_what_runs_and_what_is_ahead() -> None:
    here = (running("r", since=30), attempt("first", age=9), attempt("second", age=5))
    assert starts(*here, durations=measured("train")) == [70, 170]


def test_two_that_run_at_once_make_two_slots() -> None:
    here = (running("r", since=30), running("s", since=50), attempt("first", age=9), attempt("second", age=5))
    assert starts(*here, durations=measured("train")) == [50, 70]


def test_the_estimate_of_the_attempt_itself_counts_more_than_earlier_ones() -> None:
    here = (running("r", since=30, eta_seconds=20, eta_at=NOW - timedelta(seconds=5)), attempt("first"))
    assert starts(*here, durations=measured("train")) == [15]


def test_a_retry_does_not_start_before_its_time() -> None:
    assert starts(attempt("first", not_before=NOW + timedelta(seconds=40)), durations=measured("train")) == [40]


def test_without_a_measured_duration_the_start_is_unknown_and_says_why() -> None:
    _, waiting = forecast([running("r", since=1), attempt("first")], measured("prepare"), NOW)
    assert waiting[0].at is None
    assert waiting[0].unknown == "the end of what runs is unknown, because no step of its kind was completed before"


def test_what_comes_after_an_unmeasured_step_is_unknown_and_names_that_step() -> None:
    _, waiting = forecast([attempt("first", age=1), attempt("second")], measured(), NOW)
    assert [one.at for one in waiting] == [NOW, None]
    assert "first/train" in str(waiting[1].unknown)


def test_where_nobody_claims_work_the_start_is_unknown() -> None:
    _, waiting = forecast([attempt("first", age=600)], measured("train"), NOW)
    assert waiting[0].at is None
    assert waiting[0].unknown == "no worker of the trainer claims work"


def test_executors_have_queues_of_their_own() -> None:
    here = (running("r", since=30), attempt("t"), attempt("l", kind="label", step="label"))
    assert starts(*here, durations=measured("train", "label")) == [0, 70]


def test_durations_of_the_same_base_model_count_before_those_of_others() -> None:
    durations = Durations([Duration("train", "/m", 10), Duration("train", "/large", 1000)])
    assert durations.of(attempt("x")) == timedelta(seconds=10)
    assert durations.of(attempt("x", base_model="/other")) == timedelta(seconds=505)


def test_a_view_is_cut_for_each_executor_and_says_how_many_wait() -> None:
    here = [attempt(f"j{number}", age=9 - number) for number in range(4)] + [attempt("l", kind="label")]
    view = queue_view(here, measured(), NOW, 2)
    assert [(one.job_id, one.place) for one in view.waiting] == [("l", 1), ("j0", 1), ("j1", 2)]
    assert view.waiting_total == 5
