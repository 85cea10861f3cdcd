"""Programs read `report.json` and people read the page: one has a fixed shape, the other lets no foreign text act."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from services.demo.chart import loss_chart
from services.demo.deployed import DeploymentFound
from services.demo.findings import ArtifactFindings, Curve, findings
from services.demo.observed_job import ObservedJob
from services.demo.page import page, read_commands
from services.demo.recipe import Pipeline
from services.demo.report import Report, Unfinished, report, table
from tests.page_reader import PageReader
from tests.unit.demo.fabricated import finished

HOSTILE = "</p><script src=\"https://evil.example/x.js\">alert('&')</script><img src=x onerror=alert(1)>"


def made(pipeline: Pipeline, folder: Path, hostile: str = "") -> tuple[Report, ObservedJob, ArtifactFindings]:
    job = finished(pipeline, folder, hostile=hostile)
    found = findings(job, pipeline, lambda ref: Path(ref.uri))
    return report(job, pipeline, rows=found.rows, peak_memory_bytes=3_210_000_000), job, found


def test_the_json_report_has_exactly_the_agreed_shape(tmp_path: Path) -> None:
    found, _, _ = made("rlaif", tmp_path)
    served = DeploymentFound(name="demo", version="support-router@1.0.0", ready_seconds=9.5, answer="{}")
    found = found.model_copy(update={"deployment": served})
    assert json.loads(found.model_dump_json()) == {
        "job_id": "demo-1",
        "model": {"name": "support-router", "version": "1.0.0", "digest": "ab" * 32},
        "rows": 90,
        "scores": {
            "base": {"valid_json": 0.0111, "exact_match": 0.0, "good_reply": 0.0, "judge": None},
            "sft": {"valid_json": 1.0, "exact_match": 0.9333, "good_reply": 0.3944, "judge": -0.2214},
            "rlaif": {"valid_json": 1.0, "exact_match": 0.9222, "good_reply": 0.8611, "judge": 0.1309},
        },
        "intervals": {"rlaif": {"good_reply": {"low": 0.8, "high": 0.9111}}},
        "seconds": {
            "total": 894.0, "prepare": 6.0, "evaluate-base": 95.0, "score-base": 9.0, "train": 340.0, "evaluate-sft": 60.0,
            "score-sft": 8.0, "sample": 110.0, "label": 31.0, "align": 160.0, "evaluate": 61.0, "score": 9.0, "register": 2.0,
        },
        "events": {"neuroweaver.jobs": 40, "neuroweaver.models": 2, "neuroweaver.progress": 620, "neuroweaver.requests": 1},
        "peak_memory_bytes": 3_210_000_000,
        "deployment": {"name": "demo", "version": "support-router@1.0.0", "ready_seconds": 9.5, "answer": "{}"},
    }  # fmt: skip


def test_the_pipeline_without_feedback_has_two_stages_and_no_judge(tmp_path: Path) -> None:
    found, _, _ = made("sft", tmp_path)
    scores = json.loads(found.model_dump_json())["scores"]
    assert scores["rlaif"] is None
    assert scores["sft"] == {"valid_json": 1.0, "exact_match": 0.9222, "good_reply": 0.8611, "judge": None}
    assert [line[0] for line in table(found)] == ["base", "after SFT"]


def test_the_closing_table_has_a_line_per_stage(tmp_path: Path) -> None:
    found, _, _ = made("rlaif", tmp_path)
    assert table(found) == [
        ("base", "1%", "0%", "0%", "–"),
        ("after SFT", "100%", "93%", "39%", "-0.22"),
        ("after RLAIF", "100%", "92%", "86% (80% to 91%)", "+0.13"),
    ]


def test_a_report_is_refused_while_the_registry_has_not_spoken(tmp_path: Path) -> None:
    with pytest.raises(Unfinished, match="ModelRegistered was not read"):
        report(replace(finished("sft", tmp_path), registered=None), "sft", rows=1, peak_memory_bytes=1)


@pytest.mark.parametrize("pipeline", ["rlaif", "sft"])
def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(pipeline: Pipeline, tmp_path: Path) -> None:
    text = page(*made(pipeline, tmp_path))
    reader = PageReader(text)
    assert reader.open == []
    assert not {"script", "link", "img", "iframe", "base", "object"} & set(reader.tags)
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in reader.attributes}
    assert not re.search(r"https?:|url\(|@import", text)
    assert reader.tags.count("svg") == (2 if pipeline == "rlaif" else 1)
    assert reader.tags.count("article") == 6
    names = [value for name, value in reader.attributes if name == "id"]
    assert len(names) == len(set(names))
    assert [value for name, value in reader.attributes if name == "aria-labelledby"] == names


def test_the_page_shows_what_changed(tmp_path: Path) -> None:
    text = page(*made("rlaif", tmp_path))
    for part in (
        "support-router 1.0.0", "14 min 54 s", "from 39% to 86%", "3.2 GB", "neuroweaver.requests", "preference pairs",
        "Someone may look at it at some point.", "breaks: kind, names the item, is definite", "no readable JSON answer",
        "neuroweaver topics read neuroweaver.models --key support-router",
    ):  # fmt: skip
        assert part in text, part


def test_no_foreign_text_becomes_markup(tmp_path: Path) -> None:
    text = page(*made("rlaif", tmp_path, HOSTILE))
    assert "alert" in text
    assert not {"script", "img"} & set(PageReader(text).tags)
    assert not [name for name, _ in PageReader(text).attributes if name.startswith("on")]


def test_the_page_can_be_made_without_curves_examples_and_feedback(tmp_path: Path) -> None:
    found, job, _ = made("sft", tmp_path)
    reader = PageReader(page(found, job, ArtifactFindings(rows=0, curves=(), examples=())))
    assert reader.open == []
    assert "svg" not in reader.tags


def test_examples_are_the_first_held_out_rows_with_the_verdict_of_the_rules(tmp_path: Path) -> None:
    _, _, found = made("rlaif", tmp_path)
    assert found.rows == 90
    base, sft, rlaif = found.examples[0].answers
    assert (base.stage, base.reply, base.routed) == ("base", None, False)
    assert sft.broken == ("kind", "names the item", "is definite")
    assert rlaif.broken == ()
    assert rlaif.routed == (found.examples[0].priority == "low")


def test_a_curve_has_a_point_for_every_step_that_has_a_loss(tmp_path: Path) -> None:
    _, _, found = made("rlaif", tmp_path)
    assert [(curve.step, len(curve.points)) for curve in found.curves] == [("train", 110), ("align", 14)]


@pytest.mark.parametrize("losses", [(0.0,), (1.0, 1.0), (3.0, float("nan"), 0.2), (1e-9, 5e-9), (float("inf"), 2.0)])
def test_a_chart_of_odd_losses_is_still_a_chart(losses: tuple[float, ...]) -> None:
    text = loss_chart(Curve("train", "Training", tuple(enumerate(losses, 1))))
    assert "nan" not in text.split(">", 1)[1]
    assert "inf" not in text.split(">", 1)[1]
    assert len(re.findall(r'class="mean" points="([^"]*)"', text)[0].split()) == len(losses)


def test_the_commands_to_read_the_trail_name_each_topic_and_its_key(tmp_path: Path) -> None:
    found, _, _ = made("rlaif", tmp_path)
    assert "neuroweaver topics read neuroweaver.jobs --key demo-1" in read_commands(found)
