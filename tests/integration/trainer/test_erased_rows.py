"""Rows that are erased are read by no later step: not from the source again, not from a registered data set, not by a step that waited."""

from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.sft import TrainingSettings
from schemas.results import DATASET, ERASED_INPUTS
from schemas.row_digest import row_digest
from services.chassis.executor.child import UserFault
from services.chassis.executor.erased_inputs import without_erased
from services.chassis.storage.artifacts.erased import Erasures
from services.chassis.storage.artifacts.erasing import erase_rows
from services.chassis.storage.artifacts.store import ArtifactStore
from services.trainer.engine.recipe import recipe_of
from services.trainer.steps.prepare import ErasedMeanwhile
from tests.integration.trainer.test_registered_data import FORMS, again, asked, first
from tests.trainer import context_of

WHOLE = {"test": None, "test_fraction": 0, "validation_fraction": 0}


def lines(result: StepResult, name: str = "train.jsonl") -> list[str]:
    return (Path(result.outputs[DATASET].uri) / name).read_text().splitlines()


@pytest.mark.parametrize("learns", FORMS)
def test_the_source_is_read_again_without_the_rows_that_are_erased(tmp_path: Path, base: Path, learns: str) -> None:
    before = first(tmp_path, base, learns, split=WHOLE)
    gone = [row_digest(FORMS[learns](number)) for number in (3, 7)]
    erasures_of(before).mark(gone)
    after = first(tmp_path, base, learns, split=WHOLE)
    assert after.metrics["rows_erased"] == 2
    assert "2 rows are erased and left out" in after.facts["dataset_notes"]
    kept = [line for line in lines(before, "train.rows.txt") if line.split(" ")[0] not in gone]
    assert lines(after, "train.rows.txt") == kept
    assert after.facts["snapshot_sha256"] != before.facts["snapshot_sha256"]
    assert "rows_erased" not in before.metrics


@pytest.mark.parametrize("learns", FORMS)
def test_what_remains_of_a_registered_data_set_is_stored_again_as_the_source_without_the_rows(
    tmp_path: Path, base: Path, learns: str
) -> None:
    stored = first(tmp_path, base, learns, split=WHOLE)
    erased = {name: erase(ref, "row-5") for name, ref in stored.outputs.items() if name in (DATASET, "preferences")}
    read = again(
        tmp_path, base, stored.model_copy(update={"outputs": {**stored.outputs, **erased}}), learns, split={"test": None}
    )
    erasures_of(stored).mark([row_digest(FORMS[learns](4))])
    source = first(tmp_path, base, learns, split=WHOLE)
    assert read.metrics["rows_erased"] == source.metrics["rows_erased"] == 1
    assert read.facts["snapshot_sha256"] == source.facts["snapshot_sha256"]


def test_a_step_that_waited_reads_what_remains_and_has_another_recipe(tmp_path: Path, base: Path) -> None:
    stored = first(tmp_path, base, "answers", split=WHOLE)
    named = DatasetSettings(reference="all@0123456789ab")
    context = context_of(tmp_path, asked(base, named, "answers"), {DATASET: stored.outputs[DATASET]})
    untouched, said = without_erased(context.task)
    assert (untouched, said) == (context.task, {})
    remains = erase(stored.outputs[DATASET], "row-4")
    task, said = without_erased(context.task)
    assert task.inputs == {DATASET: remains}
    assert said == {ERASED_INPUTS: "rows were erased before this step read them: 1 of dataset"}
    recipes = [recipe_of(TrainingSettings(), "b", "t", inputs) for inputs in (context.task.inputs, task.inputs)]
    assert recipes[0] != recipes[1], "no checkpoint of a training on the row is continued"


def test_a_data_set_of_which_all_rows_are_erased_is_refused_in_words(tmp_path: Path, base: Path) -> None:
    stored = first(tmp_path, base, "answers", rows=2, split=WHOLE)
    erasures_of(stored).mark(row_digest(FORMS["answers"](number)) for number in range(2))
    with pytest.raises(UserFault, match="no rows that can be learnt from: 2 rows are erased"):
        first(tmp_path, base, "answers", rows=2, split=WHOLE)


def test_rows_that_are_erased_while_they_are_read_are_not_stored(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = first(tmp_path, base, "answers", split=WHOLE)

    def erasing(values: Any) -> str:
        erasures_of(stored).mark([row_digest(FORMS["answers"](3))])
        return row_digest(values)

    monkeypatch.setattr("services.trainer.data.prepared.row_digest", erasing)
    with pytest.raises(ErasedMeanwhile, match="the next attempt leaves them out"):
        first(tmp_path, base, "answers", rows=30, split=WHOLE)
    assert first(tmp_path, base, "answers", rows=30, split=WHOLE).metrics["rows_erased"] == 1


def erase(ref: ArtifactRef, row: str) -> ArtifactRef:
    store = ArtifactStore(root(ref))
    remaining = erase_rows(store, ref, [row], Path(ref.uri) / "no-cache")
    assert remaining is not None
    return remaining.ref


def root(ref: ArtifactRef) -> str:
    return str(Path(ref.uri).parents[2])


def erasures_of(result: StepResult) -> Erasures:
    return Erasures(root(result.outputs[DATASET]))
