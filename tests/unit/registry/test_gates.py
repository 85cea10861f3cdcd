"""What a gate says of a version, and of versions compared: it passes only what the evidence shows."""

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.artifacts import ArtifactRef
from schemas.gates import AT_LEAST, AT_MOST, FAILED, INCONCLUSIVE, PASSED, Gate
from schemas.jobs import StepResult
from schemas.metrics import rows_measured
from schemas.models import ModelRegistered
from services.registry.domain.gates import checked, verdict_of
from tests.unit.registry.test_models import a_lineage

ORDER = (FAILED, INCONCLUSIVE, PASSED)
Metrics = dict[str, float | None]


def a_version(metrics: Metrics, results: dict[str, StepResult] | None = None, **lineage: Any) -> ModelRegistered:
    return ModelRegistered(
        model="router", version="1.0.0", artifact=ArtifactRef(uri="/a", sha256="1" * 64, size=1), metrics=metrics,
        lineage=a_lineage(results=results or {}, **lineage),
    )  # fmt: skip


def with_interval(value: float, low: float, high: float, rows: float = 100) -> Metrics:
    return {"quality": value, "quality_low": low, "quality_high": high, "rows": rows}


def gate(comparison: str = AT_LEAST, **fields: Any) -> Gate:
    return Gate(metric="quality", comparison=comparison, **fields)


@pytest.mark.parametrize(
    ("asked", "metrics", "verdict"),
    [
        (gate(threshold=0.9), {"quality": 0.9}, PASSED),
        (gate(threshold=0.9), {"quality": 0.89}, FAILED),
        (gate(AT_MOST, threshold=20), {"quality": 20.0}, PASSED),
        (gate(AT_MOST, threshold=20), {"quality": 20.1}, FAILED),
        (gate(threshold=0.9), {}, INCONCLUSIVE),
        (gate(threshold=0.9), {"quality": None}, INCONCLUSIVE),
        (gate(threshold=0.9), {"quality": math.nan}, INCONCLUSIVE),
        (gate(threshold=0.9), with_interval(0.95, 0.91, 0.98), PASSED),
        (gate(threshold=0.9), with_interval(0.95, 0.89, 0.98), INCONCLUSIVE),
        (gate(threshold=0.9), with_interval(0.85, 0.8, 0.89), FAILED),
        (gate(AT_MOST, threshold=0.9), with_interval(0.85, 0.8, 0.89), PASSED),
        (gate(AT_MOST, threshold=0.9), with_interval(0.95, 0.91, 0.98), FAILED),
        (gate(threshold=0.9, interval=True), {"quality": 0.95}, INCONCLUSIVE),
        (gate(threshold=0.9, interval=True), with_interval(0.95, 0.91, 0.98), PASSED),
        (gate(threshold=0.9, rows=100), with_interval(0.95, 0.91, 0.98, rows=100), PASSED),
        (gate(threshold=0.9, rows=101), with_interval(0.95, 0.91, 0.98, rows=100), INCONCLUSIVE),
        (gate(threshold=0.9, rows=101), with_interval(0.85, 0.8, 0.89, rows=100), INCONCLUSIVE),
        (gate(threshold=0.9, rows=1), {"quality": 0.95}, INCONCLUSIVE),
        (gate("as_good_as", threshold=0.9), {"quality": 0.95}, INCONCLUSIVE),
        (gate(), {"quality": 0.95}, INCONCLUSIVE),
    ],
)
def test_a_threshold_is_met_missed_or_not_decided(asked: Gate, metrics: Metrics, verdict: str) -> None:
    assert verdict_of(asked, a_version(metrics), None).verdict == verdict


@pytest.mark.parametrize(
    ("asked", "now", "before", "verdict"),
    [
        (gate(worse_by=0.02), {"quality": 0.90}, {"quality": 0.92}, PASSED),
        (gate(worse_by=0.01), {"quality": 0.90}, {"quality": 0.92}, FAILED),
        (gate(AT_MOST, worse_by=1), {"quality": 21.0}, {"quality": 20.0}, PASSED),
        (gate(AT_MOST, worse_by=1), {"quality": 21.5}, {"quality": 20.0}, FAILED),
        (gate(worse_by=0), with_interval(0.9, 0.88, 0.92), with_interval(0.8, 0.78, 0.82), PASSED),
        (gate(worse_by=0), with_interval(0.8, 0.78, 0.82), with_interval(0.9, 0.88, 0.92), FAILED),
        (gate(worse_by=0), with_interval(0.9, 0.88, 0.92), with_interval(0.89, 0.87, 0.91), INCONCLUSIVE),
        (gate(AT_MOST, worse_by=0), with_interval(0.8, 0.78, 0.82), with_interval(0.9, 0.88, 0.92), PASSED),
        (gate(worse_by=0, interval=True), with_interval(0.9, 0.88, 0.92), {"quality": 0.1}, INCONCLUSIVE),
        (gate(worse_by=0), {"quality": 0.9}, {}, INCONCLUSIVE),
        (gate(worse_by=0, rows=50), with_interval(0.9, 0.88, 0.92), with_interval(0.1, 0, 0.2, rows=49), INCONCLUSIVE),
    ],
)
def test_a_version_is_compared_with_the_one_that_the_alias_names(
    asked: Gate, now: Metrics, before: Metrics, verdict: str
) -> None:
    said = verdict_of(asked, a_version(now), a_version(before))
    assert said.verdict == verdict
    assert (said.value, said.holder_value) == (now["quality"], before.get("quality"))


def test_what_was_measured_on_other_data_is_not_compared() -> None:
    other = a_version({"quality": 0.1}, dataset_sha256="e" * 64)
    said = verdict_of(gate(worse_by=0), a_version({"quality": 0.9}), other)
    assert (said.verdict, said.why) == (INCONCLUSIVE, "it is not known that both versions were measured on the same data")
    unknown = a_version({"quality": 0.1}, dataset_sha256=None)
    assert verdict_of(gate(worse_by=0), unknown, unknown).verdict == INCONCLUSIVE


def test_tasks_of_the_harness_are_compared_by_their_own_protocol_and_rows() -> None:
    metrics: Metrics = {
        "harness_a_acc": 0.5,
        "harness_a_rows": 40.0,
        "harness_a_b_acc": 0.4,
        "harness_a_b_rows": 9.0,
        "rows": 7.0,
    }
    asked = Gate(metric="harness_a_acc", comparison=AT_LEAST, worse_by=0, rows=40)

    def version(task: str, data: str) -> ModelRegistered:
        return a_version(metrics, {"evaluate": StepResult(facts={"harness_a": task})}, dataset_sha256=data * 64)

    assert verdict_of(asked, version("one", "d"), version("one", "e")).verdict == PASSED
    assert verdict_of(asked, version("one", "d"), version("another", "d")).verdict == INCONCLUSIVE
    assert rows_measured("harness_a_b_acc", metrics) == 9.0
    assert rows_measured("harness_c_acc", metrics) is None
    assert rows_measured("quality", metrics) == 7.0
    assert rows_measured("held_out_accuracy", {"held_out_pairs": 3.0, "rows": 7.0}) == 3.0


@pytest.mark.parametrize(
    ("shares", "verdict"), [((0.95, 0.9), PASSED), ((0.95, 0.8), INCONCLUSIVE), ((None,), INCONCLUSIVE)]
)
def test_the_judge_of_every_label_step_has_to_agree_with_the_rules(shares: tuple[float | None, ...], verdict: str) -> None:
    results = {f"label-{number}": StepResult(metrics={"agreement": share}) for number, share in enumerate(shares)}
    asked = gate(threshold=0.5, agreement=0.9)
    assert verdict_of(asked, a_version({"quality": 0.6}, results), None).verdict == verdict
    assert verdict_of(asked, a_version({"quality": 0.6}), None).verdict == INCONCLUSIVE


def test_all_gates_together_say_the_worst() -> None:
    passes, fails, waits = gate(threshold=0), gate(threshold=1), gate(threshold=0, rows=1)
    version = a_version({"quality": 0.5})
    assert checked((passes,), version, None)[0] == PASSED
    assert checked((passes, waits), version, None)[0] == INCONCLUSIVE
    assert checked((waits, fails, passes), version, None)[0] == FAILED
    assert [said.verdict for said in checked((waits, fails, passes), version, None)[1]] == [INCONCLUSIVE, FAILED, PASSED]


WHOLE = st.integers(-1000, 1000).map(float)
WIDTHS = st.none() | st.tuples(st.integers(0, 50), st.integers(0, 50))
GATES = st.builds(
    lambda comparison, limit, relative, rows, interval: gate(
        comparison, **{"worse_by" if relative else "threshold": abs(limit) if relative else limit}, rows=rows, interval=interval
    ),
    st.sampled_from((AT_LEAST, AT_MOST)), WHOLE, st.booleans(), st.none() | st.integers(1, 200), st.booleans(),
)  # fmt: skip


def known(value: float, widths: tuple[int, int] | None, rows: int | None) -> ModelRegistered:
    bounds = {} if widths is None else {"quality_low": value - widths[0], "quality_high": value + widths[1]}
    return a_version({"quality": value, **bounds, **({} if rows is None else {"rows": float(rows)})})


@given(GATES, WHOLE, st.integers(0, 500), WIDTHS, st.none() | st.integers(0, 300), st.none() | st.tuples(WHOLE, WIDTHS))
def test_a_better_metric_never_gets_a_worse_verdict(
    asked: Gate, value: float, better: int, widths: tuple[int, int] | None, rows: int | None, held: tuple[float, Any] | None
) -> None:
    holder = known(*held, rows) if held else None
    improved = value + better if asked.comparison == AT_LEAST else value - better
    before, after = (verdict_of(asked, known(one, widths, rows), holder).verdict for one in (value, improved))
    assert ORDER.index(after) >= ORDER.index(before)


@given(GATES, WHOLE, WIDTHS, st.none() | st.integers(0, 300), st.none() | st.tuples(WHOLE, WIDTHS))
def test_nothing_passes_without_evidence(
    asked: Gate, value: float, widths: tuple[int, int] | None, rows: int | None, held: tuple[float, Any] | None
) -> None:
    holder = known(*held, rows) if held else None
    said = verdict_of(asked, known(value, widths, rows), holder)
    assume(said.verdict == PASSED)
    assert asked.rows is None or (rows is not None and rows >= asked.rows)
    assert asked.worse_by is None or holder is not None
    assert not asked.interval or widths is not None
    assert verdict_of(asked, a_version({"rows": 10.0**6}), holder).verdict == INCONCLUSIVE
