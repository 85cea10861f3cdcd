"""A metric is read with how sure it is."""

from services.chassis.reports.metric_text import metric_texts, metrics_line


def test_a_metric_is_shown_with_the_bounds_of_its_interval() -> None:
    metrics = {"rows": 90.0, "loss": 0.44123, "loss_low": 0.4, "loss_high": 0.481, "judge": None}
    assert metrics_line(metrics) == "rows 90, loss 0.4412 (0.4 to 0.481), judge not measurable"


def test_a_metric_whose_interval_is_not_measurable_is_shown_alone() -> None:
    assert metric_texts({"loss": 0.5, "loss_low": None, "loss_high": None}) == [("loss", "0.5")]


def test_a_metric_that_is_not_measurable_has_no_interval() -> None:
    assert metric_texts({"loss": None, "loss_low": None, "loss_high": None}) == [("loss", "not measurable")]


def test_a_name_that_only_looks_like_a_bound_is_a_metric() -> None:
    assert metric_texts({"gpu_low": 1.0, "loss_high": 2.0, "loss": 3.0}) == [
        ("gpu_low", "1"), ("loss_high", "2"), ("loss", "3"),
    ]  # fmt: skip


def test_counts_are_shown_with_all_their_digits_and_bytes_in_mib() -> None:
    metrics = {"trainable_parameters": 4_884_480.0, "memory_peak_bytes": 1_020_000_000.0, "loss": 12345.678, "tokens": 1e20}
    assert metrics_line(metrics) == "trainable_parameters 4884480, memory_peak_bytes 973 MiB, loss 1.235e+04, tokens 1e+20"
