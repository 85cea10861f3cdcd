"""A report shows people what a step made, and lets no text of others act."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.jobs import StepResult
from schemas.lines import TaskSample
from schemas.recipes.evaluation import EvaluationSettings
from schemas.rules import Rule
from schemas.steps import EvaluateSettings
from services.chassis.executor.child import Context, Handler
from services.chassis.reports.chart import line_chart
from services.chassis.reports.contents import Contents, Sample, contents
from services.chassis.reports.reported import reported
from services.chassis.reports.sections import Resources
from services.chassis.reports.step_report import step_report
from services.chassis.storage.json_lines import write_lines
from tests.page_reader import PageReader
from tests.trainer import context_of, put_lines, row, task_of

HOSTILE = "</p></style><script>alert('&')</script><img src=x onerror=alert(1)>\x00\x1b[31m\u202e"
MESSAGES = [{"role": "user", "content": HOSTILE}]


def settings() -> EvaluateSettings:
    rule = Rule(name=HOSTILE[:20], kind="max_words", words=3)
    return EvaluateSettings(base_model=f"/models/{HOSTILE}", evaluation=EvaluationSettings(rules=(rule,)))


def hostile_result(home: Path) -> StepResult:
    prediction = {
        "id": "1", "messages": MESSAGES, "columns": {}, "reference": HOSTILE, "greedy": HOSTILE, "samples": ["", HOSTILE * 50],
        "nll": 1.0,
    }  # fmt: skip
    preference = {"id": "1", "messages": MESSAGES, "chosen": HOSTILE, "rejected": "no", "chosen_score": 0.5}
    curve = [{"step": number, "loss": 3.0 - number / 10, HOSTILE: 1.0} for number in range(1, 20)]
    judged = {"id": "2", "messages": MESSAGES, "completion": HOSTILE, "label": False}
    made = put_lines(home, predictions=[prediction], preferences=[preference], judged=[judged], curve=curve)
    return StepResult(
        outputs={"predictions": made},
        metrics={"rows": 1.0, "loss": 0.44, "loss_low": 0.4, "loss_high": 0.5, "judge": None, HOSTILE: 1.0},
        facts={"rows_left_out": f"2 rows: {HOSTILE}", HOSTILE: HOSTILE},
    )


def text_of(home: Path, result: StepResult, found: Contents | None = None) -> str:
    used = Resources(75.0, 2_340_000_000, [(1.0, 1.1), (2.0, 1.2)], [(1.0, 900.0), (2.0, 950.0)])
    task = task_of(home, settings(), step="evaluate-sft", attempt=2)
    return step_report(task, result, found or contents(result), used, datetime(2030, 1, 1, tzinfo=UTC))


def test_no_text_of_others_acts_and_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    text = text_of(tmp_path, hostile_result(tmp_path))
    reader = PageReader(text)
    assert reader.open == []
    assert not {"script", "link", "img", "iframe", "base", "object"} & set(reader.tags)
    assert not [
        name for name, _ in reader.attributes if name in ("src", "href", "srcset", "action") or name.startswith("on")
    ]
    assert not re.search(r"https?:|url\(|@import", text)
    assert not re.search("[\x00-\x08\x1b\u202e]", text)
    names = [value for name, value in reader.attributes if name == "id"]
    assert len(names) == len(set(names))
    assert "<script>alert('&')</script>" in reader.said


def test_it_shows_results_rows_curves_samples_and_configuration(tmp_path: Path) -> None:
    reader = PageReader(text_of(tmp_path, hostile_result(tmp_path)))
    for part in (
        "evaluate-sft (evaluate)", "in attempt 2 ran for 1 min 15 s and used at most 2.34 GB", "0.4 to 0.5", "not measurable",
        "2 rows: ", "Training loss", "Memory of the process", "Tokens per second", "reference", "greedy answer", "empty",
        "chosen, +0.50", "unwanted answer", "evaluation.max_new_tokens", "made predictions", "2030-01-01 00:00 UTC",
    ):  # fmt: skip
        assert part in reader.said, part
    assert reader.tags.count("svg") == 4


def test_a_step_without_any_numbers_has_a_report_too(tmp_path: Path) -> None:
    assert "Configuration" in PageReader(text_of(tmp_path, StepResult())).said


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1e300, 0.0])
def test_any_number_can_be_shown(tmp_path: Path, value: float) -> None:
    assert "odd" in text_of(tmp_path, StepResult(metrics={"odd": value, "odd_low": value, "odd_high": value}))


def test_answers_of_the_harness_are_shown_with_the_end_of_their_prompts(tmp_path: Path) -> None:
    question = f"{'example ' * 500}the question?"
    written = TaskSample(task="sums", row=0, prompt=question, expected="5", answers=("2 + 3 is 5", "6"), read="5")
    scored = TaskSample(
        task="colours", row=7, prompt="grass", expected="green", answers=("red", "green", "blue"), scores=(-4.0, -0.5, None)
    )
    folder = tmp_path / "made"
    folder.mkdir()
    write_lines(folder / TaskSample.FILE, [written, scored] * 20)
    result = StepResult(outputs={"predictions": ArtifactRef(uri=str(folder), sha256="0" * 64, size=1)})
    found = contents(result).samples
    assert len(found) == 24
    assert found[0].prompt.startswith("sums, row 0\n… ")
    assert found[0].prompt.endswith("the question?")
    assert len(found[0].prompt) < 500
    assert list(found[0].texts) == [("expected", "5"), ("answer 1", "2 + 3 is 5"), ("answer 2", "6"), ("read as", "5")]
    assert list(found[1].texts) == [
        ("expected", "green"), ("choice, log-probability -4.00", "red"), ("most likely choice, log-probability -0.50", "green"),
        ("choice", "blue"),
    ]  # fmt: skip


def test_many_samples_are_not_selected_and_long_texts_are_shortened(tmp_path: Path) -> None:
    made = put_lines(tmp_path, train=[row(number, f"prompt {number}", "word " * 1000) for number in range(30)])
    found = contents(StepResult(outputs={"dataset": made}))
    assert [sample.prompt for sample in found.samples] == [f"prompt {number}" for number in range(8)]
    assert len(text_of(tmp_path, StepResult(), found)) < 40_000


def test_what_prepare_noticed_about_rows_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"notes": ["3 rows were left out"]}))
    result = StepResult(outputs={"dataset": ArtifactRef(uri=str(folder), sha256="0" * 64, size=1)})
    assert "3 rows were left out" in text_of(tmp_path, result)


def test_the_curves_of_single_rewards_are_named_in_words(tmp_path: Path) -> None:
    curves = {
        "reward": [(1.0, 2.0)],
        "reward_judge": [(1.0, 3.0)],
        "reward_margin": [(1.0, 0.1)],
        "clip_ratio": [(1.0, 0.0)],
    }
    said = PageReader(text_of(tmp_path, StepResult(), Contents(curves=curves))).said
    for title in ("Mean of the reward judge", "clip_ratio", "By how much the reward of the better answer is higher"):
        assert title in said


def test_curves_of_a_million_steps_and_values_that_are_not_finite_are_drawn(tmp_path: Path) -> None:
    points = [(float(step), float("nan") if step % 7 == 0 else -1.0 / (step + 1)) for step in range(100_000)]
    assert len(line_chart(points, "loss", "step")) < 25_000
    assert "nan" not in line_chart(points[:50], "loss", "step")
    assert "polyline" in line_chart([(1.0, 0.0)], "loss", "step")


def test_a_curve_that_is_0_throughout_has_the_ticks_of_a_share() -> None:
    chart = line_chart([(1.0, 0.0), (2.0, 0.0)], "x", "step")
    assert re.findall(r'text-anchor="end">([^<]*)<', chart)[:5] == ["0", "0.25", "0.5", "0.75", "1"]


@pytest.mark.parametrize("values", [[1e-5, 2e-5], [-3.0, 4.0], [1e9, 2e9], [5.0]])
def test_a_chart_keeps_its_lines_within_its_frame(values: list[float]) -> None:
    chart = line_chart(list(enumerate(map(float, values))), "x", "step")
    for line in re.findall(r'points="([^"]*)"', chart):
        assert all(0 <= float(y) <= 220 and 0 <= float(x) <= 420 for x, y in (pair.split(",") for pair in line.split()))


def run(handler: Handler, home: Path) -> tuple[StepResult, Sequence[EventData]]:
    made = reported(handler)(context_of(home, settings()))
    assert isinstance(made, tuple)
    return made


def test_a_step_leaves_its_report_as_an_artifact_of_its_own(tmp_path: Path) -> None:
    def handler(_: Context) -> StepResult:
        return StepResult(metrics={"rows": 3.0})

    result, events = run(handler, tmp_path)
    assert events == ()
    assert result.metrics == {"rows": 3.0}
    text = (Path(result.outputs["report"].uri) / "report.html").read_text()
    assert PageReader(text).said.count("rows") >= 1


def test_a_report_that_cannot_be_made_does_not_fail_the_step(tmp_path: Path) -> None:
    torn = put_lines(tmp_path, train=[{"id": "not a row"}])

    def handler(_: Context) -> tuple[StepResult, list[Any]]:
        return StepResult(outputs={"dataset": torn}), []

    result, _ = run(handler, tmp_path)
    assert result.outputs == {"dataset": torn}
    assert result.facts == {"report": "it could not be made (ValidationError)"}


def test_a_sample_without_texts_is_a_prompt(tmp_path: Path) -> None:
    assert "only a prompt" in text_of(tmp_path, StepResult(), Contents(samples=[Sample("only a prompt", [])]))
