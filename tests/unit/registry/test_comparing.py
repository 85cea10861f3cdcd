"""What differs between versions, what is better, and which one fits a goal; with too little evidence the answer says so."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.metrics import Metric
from schemas.models import ModelRegistered
from services.registry.comparing.change import change
from services.registry.comparing.comparison import compared
from services.registry.comparing.recommendation import recommended
from services.registry.views import VersionView
from tests.unit.registry.test_models import a_lineage

NUMBERS = st.floats(-1e6, 1e6)
WIDTHS = st.floats(0, 1e3)


def view(
    version: str, *, size: int = 100, evaluated: bool = True, data: str = "d", rank: int = 8, **metrics: Any
) -> VersionView:
    adapter = ArtifactRef(uri="/a", sha256=f"{hash(version) % 10**9:064}", size=size)
    predictions = {"predictions": ArtifactRef(uri="/p", sha256="a" * 64, size=1)}
    results = {"evaluate": StepResult(inputs={"adapter": adapter.sha256}, outputs=predictions)} if evaluated else {}
    lineage = a_lineage(f"job-{version}", dataset_sha256=data * 64, configuration={"lora": {"rank": rank}}, results=results)
    made = ModelRegistered(model="router", version=version, artifact=adapter, lineage=lineage, metrics=metrics)
    return VersionView.of(made, datetime(2030, 1, 1, tzinfo=UTC), ())


def between(name: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


@given(NUMBERS, WIDTHS, WIDTHS, NUMBERS, WIDTHS, WIDTHS)
def test_the_interval_of_a_difference_holds_it_and_turns_round_with_it(
    one: float, one_down: float, one_up: float, other: float, other_down: float, other_up: float
) -> None:
    before = Metric("loss", one, (one - one_down, one + one_up))
    after = Metric("loss", other, (other - other_down, other + other_up))
    there, back = change(before, after), change(after, before)
    assert there is not None
    assert back is not None
    assert there.bounds is not None
    assert there.bounds[0] <= there.difference <= there.bounds[1]
    assert back.bounds == pytest.approx((-there.bounds[1], -there.bounds[0]), abs=1e-6)
    opposite = {"better": "worse", "worse": "better", "unclear": "unclear", "equal": "equal"}
    if min(map(abs, there.bounds)) > 1e-6:
        assert back.verdict == opposite[there.verdict]


@pytest.mark.parametrize(
    ("name", "before", "after", "verdict"),
    [
        ("loss", (1.0, 0.9, 1.1), (0.5, 0.4, 0.6), "better"),
        ("exact_match", (0.8, 0.75, 0.85), (0.5, 0.4, 0.6), "worse"),
        ("good_reply_pass_at_4", (0.2, 0.1, 0.3), (0.8, 0.7, 0.9), "better"),
        ("exact_match", (0.8, 0.7, 0.9), (0.85, 0.75, 0.95), "unclear"),
        ("rows", (10.0, 9.0, 11.0), (50.0, 49.0, 51.0), "unclear"),
    ],
)
def test_a_difference_is_better_or_worse_only_where_its_interval_and_its_direction_say_so(
    name: str, before: tuple[float, float, float], after: tuple[float, float, float], verdict: str
) -> None:
    made = change(Metric(name, before[0], before[1:]), Metric(name, after[0], after[1:]))
    assert made is not None
    assert made.verdict == verdict


def test_without_an_interval_only_what_is_counted_differs_clearly() -> None:
    assert change(Metric("exact_match", 0.1, None), Metric("exact_match", 0.9, None)).verdict == "unclear"  # type: ignore[union-attr]
    assert change(Metric("size_bytes", 9, None), Metric("size_bytes", 3, None)).verdict == "better"  # type: ignore[union-attr]
    assert change(Metric("size_bytes", 9, None), Metric("size_bytes", 9, None)).verdict == "equal"  # type: ignore[union-attr]
    assert change(Metric("loss", None, None), Metric("loss", 1.0, None)) is None


def test_a_comparison_shows_what_differs_and_compares_only_what_was_measured_on_the_same_data() -> None:
    first = view("1.0.0", exact_match=0.5, rows=40.0)
    second = view("1.1.0", rank=16, rows=40.0, **between("exact_match", 0.9, 0.8, 1.0))
    other = view("1.2.0", data="e", exact_match=0.7, rows=40.0)
    found = compared([first, second, other], everything=False)
    assert [metric.name for metric in found.metrics] == ["exact_match"]
    assert [value and value.value for value in found.metrics[0].values] == [0.5, 0.9, 0.7]
    assert [made and made.verdict for made in found.metrics[0].changes] == [None, "unclear", None]
    fields = {field.field: field.values for field in found.configuration}
    assert fields["training.lora.rank"] == (8, 16, 8)
    assert "base_model" not in fields
    assert found.remarks == (
        "router@1.2.0 was measured on other data than router@1.0.0, so their metrics are shown and not compared",
    )
    everything = compared([first, second, other], everything=True)
    assert {"exact_match", "rows"} == {metric.name for metric in everything.metrics}
    assert "base_model" in {field.field for field in everything.configuration}


def test_a_version_without_an_evaluation_is_named() -> None:
    found = compared([view("1.0.0", exact_match=0.5), view("1.1.0", evaluated=False)], everything=False)
    assert [version.evaluated for version in found.versions] == [True, False]
    assert found.metrics[0].values[1] is None
    assert found.remarks == ("router@1.1.0 was not evaluated before its registration",)


def test_the_best_version_for_a_goal_is_clear_only_if_it_is_better_beyond_chance() -> None:
    good = view("1.0.0", **between("exact_match", 0.9, 0.85, 0.95))
    bad = view("1.1.0", **between("exact_match", 0.5, 0.4, 0.6))
    close = view("1.2.0", **between("exact_match", 0.88, 0.8, 0.94))
    found = recommended("router", [bad, good], {"quality": 1.0})
    assert (found.version, found.confidence) == ("router@1.0.0", "clear")
    found = recommended("router", [close, bad, good], {"quality": 1.0})
    assert (found.version, found.confidence) == ("router@1.0.0", "unclear")
    assert [one.id for one in found.considered] == ["router@1.0.0", "router@1.2.0", "router@1.1.0"]
    assert any("router@1.2.0" in reason for reason in found.reasons)


def test_weights_decide_between_goals_and_what_was_not_measured_is_named() -> None:
    large = view("1.0.0", size=1000, exact_match=0.9, latency_ms_per_token=20.0)
    small = view("1.1.0", size=100, exact_match=0.8, latency_ms_per_token=10.0)
    unmeasured = view("1.2.0", exact_match=0.95)
    views = [large, small, unmeasured, view("1.3.0", evaluated=False), view("1.4.0", data="e", exact_match=1.0)]
    assert recommended("router", views, {"quality": 1.0}).version == "router@1.2.0"
    found = recommended("router", views, {"quality": 0.9, "latency": 0.1})
    assert found.version == "router@1.0.0"
    assert found.missing == (
        "router@1.3.0 was not evaluated", "router@1.4.0 was measured on other data", "router@1.2.0 lacks latency_ms_per_token"
    )  # fmt: skip
    assert recommended("router", views, {"quality": 0.1, "latency": 0.9}).version == "router@1.1.0"
    assert recommended("router", [large, small], {"size": 1.0}).confidence == "clear"


def test_what_is_deprecated_or_archived_is_named_and_not_recommended() -> None:
    best = view("1.1.0", exact_match=0.9).model_copy(update={"state": "archived", "state_reason": "It is slow."})
    found = recommended("router", [best, view("1.0.0", exact_match=0.8)], {"quality": 1.0})
    assert (found.version, found.missing) == ("router@1.0.0", ("router@1.1.0 is archived: It is slow.",))


def test_without_evidence_nothing_is_recommended() -> None:
    found = recommended("router", [view("1.0.0", evaluated=False)], {"quality": 1.0})
    assert (found.version, found.confidence, found.reasons) == (None, "none", ("no version was evaluated",))
    found = recommended("router", [view("1.0.0", exact_match=0.9)], {"quality": 1.0}, metric="bleu")
    assert (found.version, found.reasons) == (None, ("no version has all that the goal needs",))


@given(st.permutations(["1.0.0", "1.1.0", "1.2.0"]))
def test_equally_good_versions_are_recommended_in_the_order_in_which_they_come(order: list[str]) -> None:
    views = [view(version, exact_match=0.9) for version in order]
    assert recommended("router", views, {"quality": 1.0}).version == f"router@{order[0]}"
