"""Rows of a registered data set are read again exactly as they were stored, so that they stay the same data set."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.jobs import StepResult
from schemas.recipes.dataset import DatasetSettings
from schemas.row_digest import row_digest
from schemas.steps import PrepareSettings
from services.chassis.executor.child import UserFault
from services.trainer.steps.prepare import prepare
from tests.trainer import context_of

NAMED = "all@0123456789ab"


def row(number: int) -> dict[str, Any]:
    return {"prompt": f"Where is {number}?", "completion": f"Here, {number % 5}.", "ticket": number}


def pair(number: int) -> dict[str, Any]:
    return {"prompt": f"Where is {number}?", "chosen": "Sorry.", "rejected": "No."}


def label(number: int) -> dict[str, Any]:
    return {"prompt": f"Where is {number}?", "completion": "Sorry.", "label": number % 3 != 0}


FORMS: dict[str, Any] = {"answers": row, "pairs": pair, "labels": label}


def first(home: Path, base: Path, learns: str, rows: int = 40, **dataset: Any) -> StepResult:
    (home / "all.jsonl").write_text("".join(json.dumps(FORMS[learns](number)) + "\n" for number in range(rows)))
    settings = DatasetSettings.model_validate(
        {"reference": str(home / "all.jsonl"), "split": {"test_fraction": 0.2}, **dataset}
    )
    return prepare(context_of(home, asked(base, settings, learns)))


def again(home: Path, base: Path, stored: StepResult, learns: str, **dataset: Any) -> StepResult:
    settings = DatasetSettings.model_validate({"reference": NAMED, **dataset})
    return prepare(context_of(home, asked(base, settings, learns), stored.outputs))


def asked(base: Path, settings: DatasetSettings, learns: Any) -> PrepareSettings:
    return PrepareSettings(base_model=str(base), dataset=settings, max_length=64, learns=learns)


@pytest.mark.parametrize("learns", FORMS)
def test_what_was_stored_is_the_same_data_set_when_it_is_read_again(tmp_path: Path, base: Path, learns: str) -> None:
    stored = first(tmp_path, base, learns)
    read = again(tmp_path, base, stored, learns)
    assert stored.facts["dataset_name"] == read.facts["dataset_name"] == "all"
    for fact in ("snapshot_sha256", "dataset_sha256", "dataset_layout"):
        assert read.facts[fact] == stored.facts[fact], fact
    assert read.facts["dataset_reference"] == NAMED
    assert read.metrics == stored.metrics
    assert read.outputs == stored.outputs, "so that a repeated training is one"
    assert again(tmp_path, base, read, learns).facts["snapshot_sha256"] == stored.facts["snapshot_sha256"]


def test_rows_that_are_left_out_make_another_data_set_whose_rows_keep_their_ids(tmp_path: Path, base: Path) -> None:
    stored = first(tmp_path, base, "answers")
    without = again(tmp_path, base, stored, "answers", split={"test": None})
    assert without.facts["snapshot_sha256"] != stored.facts["snapshot_sha256"]
    before, after = (Path(result.outputs["dataset"].uri) / "train.rows.txt" for result in (stored, without))
    assert before.read_text() == after.read_text()


def test_the_digest_of_each_row_is_that_of_the_row_as_it_was_given(tmp_path: Path, base: Path) -> None:
    stored = first(tmp_path, base, "answers", rows=30)
    lines = [
        line.split(" ")
        for split in ("train", "validation", "test")
        if (path := Path(stored.outputs["dataset"].uri) / f"{split}.rows.txt").exists()
        for line in path.read_text().splitlines()
    ]
    assert {row_id: digest for digest, row_id in lines} == {f"row-{n + 1}": row_digest(row(n)) for n in range(30)}


def test_answers_that_are_not_wanted_have_their_digests_too(tmp_path: Path, base: Path) -> None:
    stored = first(tmp_path, base, "labels", split={"test": None, "test_fraction": 0, "validation_fraction": 0})
    lines = (Path(stored.outputs["dataset"].uri) / "train.rows.txt").read_text().splitlines()
    assert [line.split(" ")[0] for line in lines] == [row_digest(label(number)) for number in range(40)]


@pytest.mark.parametrize("learns", ["pairs", "labels"])
def test_a_data_set_of_answers_has_no_pairs_and_no_labels(tmp_path: Path, base: Path, learns: str) -> None:
    stored = first(tmp_path, base, "answers")
    with pytest.raises(UserFault) as raised:
        again(tmp_path, base, stored, learns)
    (reason,) = raised.value.reasons
    assert (reason.field, reason.value) == ("dataset.reference", repr(NAMED))
    assert f"without the {learns}" in reason.message


def test_answers_are_learnt_from_pairs_and_labels_from_pairs(tmp_path: Path, base: Path) -> None:
    stored = first(tmp_path, base, "pairs")
    answers, labels = (again(tmp_path, base, stored, learns) for learns in ("answers", "labels"))
    assert answers.facts["dataset_sha256"] == stored.facts["dataset_sha256"]
    assert labels.metrics["labels"] == 2 * (stored.metrics["pairs"] or 0)


def test_who_stored_data_and_what_is_said_about_them_is_no_part_of_them(tmp_path: Path, base: Path) -> None:
    one = first(tmp_path, base, "answers", source="tickets of 2026", licence="CC0", name="support")
    other = first(tmp_path, base, "answers")
    assert (one.facts["dataset_name"], one.facts["dataset_source"], one.facts["dataset_licence"]) == (
        "support", "tickets of 2026", "CC0",
    )  # fmt: skip
    assert one.facts["snapshot_sha256"] == other.facts["snapshot_sha256"]
    assert one.outputs == other.outputs
