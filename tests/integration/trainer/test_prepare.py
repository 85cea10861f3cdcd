"""Whoever sends wrong data or a wrong model learns at the first step which rows, what is wrong, and what to do."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.jobs import StepResult
from schemas.reasons import Reason
from schemas.recipes.dataset import DatasetSettings
from schemas.steps import PrepareSettings
from services.chassis.executor.child import UserFault
from services.trainer.steps.prepare import prepare
from tests.trainer import context_of, lines_of


def write(folder: Path, **splits: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rows(*names: str, completion: str = "yes") -> list[dict[str, Any]]:
    return [{"prompt": name, "completion": completion, "extra": 1} for name in names]


def run(home: Path, base: Path | str, data: Path, max_length: int = 64, **dataset: Any) -> StepResult:
    settings = DatasetSettings.model_validate({"reference": str(data), **dataset})
    return prepare(context_of(home, PrepareSettings(base_model=str(base), dataset=settings, max_length=max_length)))


def reasons(*arguments: Any, **keywords: Any) -> tuple[Reason, ...]:
    with pytest.raises(UserFault) as raised:
        run(*arguments, **keywords)
    return raised.value.reasons


def test_the_snapshot_holds_every_row_and_counts_what_will_be_supervised(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=rows("a", "b"), test=rows("c"))
    result = run(tmp_path, base, data, system_prompt="Be kind.")
    (line,) = lines_of(result.outputs["dataset"], "test.jsonl")
    assert line == {
        "id": "test-1",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "c"}],
        "completion": "yes",
        "columns": {"prompt": "c", "completion": "yes", "extra": "1"},
    }
    assert result.metrics["rows_train"] == 2
    assert result.metrics["supervised_tokens_train"] == 2 * len(
        "yes<"
    )  # one token a byte, and the one that ends the answer
    of_the_registry = {"dataset_name", "snapshot_sha256", "dataset_reference", "requester"}
    assert set(result.facts) == {
        "base_model_sha256", "chat_template_sha256", "dataset_sha256", "dataset_layout", *of_the_registry,
    }  # fmt: skip


def test_the_same_data_have_the_same_digest_wherever_they_lie(tmp_path: Path, base: Path) -> None:
    first = write(tmp_path / "one", train=rows("a", "b"), test=rows("c"))
    second = write(tmp_path / "two", train=rows("a", "b"), test=rows("c"))
    other = write(tmp_path / "three", train=rows("a", "b"), test=rows("d"))
    digests = [run(tmp_path, base, data).facts["dataset_sha256"] for data in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]


def test_one_file_is_divided_without_losing_a_row(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", all=rows(*(f"number {number}" for number in range(60))))
    metrics = run(tmp_path, base, data / "all.jsonl", split={"test_fraction": 0.3}).metrics
    assert sum(metrics[f"rows_{split}"] or 0 for split in ("train", "validation", "test")) == 60
    assert 8 <= (metrics["rows_test"] or 0) <= 30


def test_a_wrong_column_is_said_with_how_many_rows_lack_it_and_not_with_those_there_are(tmp_path: Path, base: Path) -> None:
    questions = [{"question": str(number), "answer": "x"} for number in range(7)]
    data = write(tmp_path / "data", train=questions, test=questions)
    (reason,) = reasons(tmp_path, base, data, columns={"prompt": "ask", "completion": "answer"})
    assert reason.field == "dataset.columns.prompt"
    assert reason.message == "none of the 2 columns is named 'ask'"
    assert reason.value == "train.jsonl line 1, train.jsonl line 2, train.jsonl line 3 and 11 more"


def test_different_faults_are_all_told_at_once(tmp_path: Path, base: Path) -> None:
    bad: list[dict[str, Any]] = [{"prompt": " ", "completion": "x"}, {"prompt": "x", "completion": None}]
    found = reasons(tmp_path, base, write(tmp_path / "data", train=bad, test=rows("a")))
    assert [reason.field for reason in found] == ["dataset.columns.prompt", "dataset.columns.completion"]


def test_a_row_whose_prompt_fills_the_length_has_nothing_to_learn(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=[*rows("short"), *rows("long " * 20)], test=rows("a"))
    (reason,) = reasons(tmp_path, base, data)
    assert (reason.field, reason.value) == ("training.max_length", "train.jsonl line 2")
    assert "max_length" in reason.remedy


def test_an_answer_that_is_cut_is_counted_not_refused(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=rows("a", completion="long " * 20), test=rows("b"))
    assert run(tmp_path, base, data).metrics["rows_cut"] == 1


def test_repeated_rows_are_kept_and_counted_and_left_out_where_that_is_asked(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=[*rows("a", "b"), *rows("a")], test=rows("c"))
    kept, removed = run(tmp_path, base, data).metrics, run(tmp_path, base, data, deduplicate=True).metrics
    assert (kept["rows_train"], kept["rows_repeated"]) == (3, 1)
    assert (removed["rows_train"], removed["rows_repeated"]) == (2, 1)


def test_one_prompt_with_two_answers_is_counted_as_a_contradiction(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=[*rows("a", "b"), *rows("a", completion="no")], test=rows("c"))
    metrics = run(tmp_path, base, data).metrics
    assert (metrics["rows_contradicting"], metrics["rows_repeated"]) == (2, 0)


def test_held_out_prompts_that_were_learnt_are_counted(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=rows("a", "b"), test=rows("b", "c"))
    assert run(tmp_path, base, data).metrics["rows_test_seen_in_train"] == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_refused(tmp_path: Path, base: Path, split: str) -> None:
    data = write(tmp_path / "data", **{"train": rows("a"), "test": rows("b"), split: []})
    (reason,) = reasons(tmp_path, base, data)
    assert reason.field == f"dataset.split.{split}"


def test_an_unknown_base_model_is_refused(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=rows("a"), test=rows("b"))
    (reason,) = reasons(tmp_path, tmp_path / "nowhere", data)
    assert reason.field == "base_model"
    assert "nowhere" in (reason.value or "")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("chat_template.jinja", "no chat template"),
        ("model.safetensors", "no weights in safetensors"),
        ("config.json", "config.json cannot be read"),
        ("tokenizer.json", "tokenizer cannot be loaded"),
    ],
)
def test_a_base_model_that_lacks_a_part_is_refused(tmp_path: Path, base: Path, file: str, words: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in base.iterdir():
        if path.name != file:
            (broken / path.name).write_bytes(path.read_bytes())
    data = write(tmp_path / "data", train=rows("a"), test=rows("b"))
    (reason,) = reasons(tmp_path, broken, data)
    assert reason.field == "base_model"
    assert words in reason.message


def test_more_tokens_than_the_model_reads_are_refused(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=rows("a"), test=rows("b"))
    (reason,) = reasons(tmp_path, base, data, max_length=4096)
    assert reason.field == "training.max_length"
    assert "1024" in reason.message


def test_a_template_that_refuses_a_chat_is_answered_with_the_row(tmp_path: Path, base: Path) -> None:
    strict = tmp_path / "strict"
    strict.mkdir()
    for path in base.iterdir():
        (strict / path.name).write_bytes(path.read_bytes())
    template = (strict / "chat_template.jinja").read_text()
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    (strict / "chat_template.jinja").write_text(refusal + template)
    data = write(tmp_path / "data", train=rows("a", "b"), test=rows("c"))
    assert run(tmp_path, strict, data).metrics["rows_train"] == 2
    (reason,) = reasons(tmp_path, strict, data, system_prompt="Be kind.")
    assert "chat template refuses it" in reason.message
    assert "no system turn" not in reason.message
    assert reason.value == "train.jsonl line 1, train.jsonl line 2, test.jsonl line 1"


def test_a_bad_row_of_many_is_left_out_counted_and_said(tmp_path: Path, base: Path) -> None:
    train = [*rows(*map(str, range(20))), {"prompt": "x", "completion": float("nan")}]
    result = run(tmp_path, base, write(tmp_path / "data", train=train, test=rows("a")))
    assert (result.metrics["rows_train"], result.metrics["rows_bad"], result.metrics["rows_bad_completion"]) == (20, 1, 1)
    described = json.loads((Path(result.outputs["dataset"].uri) / "dataset.json").read_text())
    assert described["notes"] == [
        "1 row is left out: column 'completion' contains NaN or an infinity, not text (train.jsonl line 21)"
    ]
    (reason,) = reasons(tmp_path, base, tmp_path / "data", on_bad_row="refuse")
    assert reason.value == "train.jsonl line 21"


def test_long_rows_are_cut_left_out_or_refused_as_asked(tmp_path: Path, base: Path) -> None:
    train = [*rows("a", "b"), *rows("c", completion="long " * 20), *rows("long " * 20)]
    data = write(tmp_path / "data", train=train[:3], test=rows("x"))
    cut = run(tmp_path, base, data).metrics
    assert (cut["rows_train"], cut["rows_cut"], cut["rows_too_long"]) == (3, 1, 0)
    write(data, train=train)
    skipped = run(tmp_path, base, data, on_long_row="skip").metrics
    assert (skipped["rows_train"], skipped["rows_cut"], skipped["rows_too_long"], skipped["rows_bad"]) == (2, 0, 2, 0)
    write(data, train=train[:3])
    (reason,) = reasons(tmp_path, base, data, on_long_row="refuse")
    assert (reason.field, reason.value) == ("dataset.on_long_row", "train.jsonl line 3")


def test_a_split_whose_rows_are_all_left_out_is_refused(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=rows("a"), test=rows("long " * 20))
    (reason,) = reasons(tmp_path, base, data, on_long_row="skip")
    assert reason.field == "dataset.split.test"
    (reason,) = reasons(tmp_path, base, data, bad_rows_limit=1.0)
    assert "1 row is bad" in reason.message


PAIRS = [{"prompt": f"{number}?", "chosen": "yes", "rejected": "no"} for number in range(4)]


def learnt(home: Path, base: Path, data: Path, learns: str) -> StepResult:
    settings = {"base_model": str(base), "dataset": {"reference": str(data)}, "max_length": 64, "learns": learns}
    return prepare(context_of(home, PrepareSettings.model_validate(settings)))


def test_pairs_become_preferences_and_their_chosen_answers_a_data_set(tmp_path: Path, base: Path) -> None:
    result = learnt(tmp_path, base, write(tmp_path / "data", train=PAIRS, test=PAIRS[:1]), "pairs")
    first = lines_of(result.outputs["preferences"], "preferences.jsonl")[0]
    assert first == {
        "id": "train-1",
        "messages": [{"role": "user", "content": "0?"}],
        "chosen": "yes",
        "rejected": "no",
    }
    assert lines_of(result.outputs["dataset"], "test.jsonl")[0]["completion"] == "yes"
    assert result.metrics["pairs"] == 4
    assert result.facts["dataset_layout"] == "preference pairs, in the columns prompt, chosen, rejected"


def test_labelled_answers_and_pairs_become_judged_answers(tmp_path: Path, base: Path) -> None:
    labelled = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "c", "label": False}]
    data = write(tmp_path / "data", train=labelled, test=labelled[:1])
    result = learnt(tmp_path, base, data, "labels")
    found = lines_of(result.outputs["preferences"], "judged.jsonl")
    assert [(line["completion"], line["label"]) for line in found] == [("b", True), ("c", False)]
    assert result.metrics["rows_train"] == 1
    result = learnt(tmp_path, base, write(data, train=PAIRS[:1], test=PAIRS[1:]), "labels")
    found = lines_of(result.outputs["preferences"], "judged.jsonl")
    assert [(line["completion"], line["label"]) for line in found] == [("yes", True), ("no", False)]


def test_a_pair_of_which_one_answer_is_cut_away_is_bad(tmp_path: Path, base: Path) -> None:
    long = {"chosen": [{"role": "user", "content": "x " * 40}, {"role": "assistant", "content": "y"}]}
    data = write(tmp_path / "data", train=[*PAIRS, {**long, "rejected": [*long["chosen"][:1], {"role": "assistant", "content": "n"}]}], test=PAIRS)  # fmt: skip
    with pytest.raises(UserFault, match="no token of the answer"):
        learnt(tmp_path, base, data, "pairs")


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("", "dataset.split.train", "has no rows"),
        ("\n\n", "dataset.split.train", "has no rows"),
        ("[]", "dataset.split.train", "has no rows"),
        ('{"prompt": "a",}\n', "dataset.reference", "not JSON"),
        ("[1, 2]", "dataset.reference", "an object is expected"),
        ("\x00" * 50, "dataset.reference", "not JSON"),
        ('{"prompt": "a", "completion": "b", "x": ' + "[" * 300 + "]" * 300 + "}", "dataset.reference", "nested deeper"),
        (json.dumps({"messages": '[{"role": "user", "content": "\\ud83d"}]'}), "dataset.reference", "half of a character"),
    ],
)
def test_a_file_without_a_readable_row_is_refused_by_its_cause(
    tmp_path: Path, base: Path, text: str, field: str, words: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    reason = reasons(tmp_path, base, tmp_path / "rows.jsonl", split={"test": None})[0]
    assert reason.field == field
    assert words in reason.message


def test_columns_of_every_kind_of_a_table_are_kept_as_text(tmp_path: Path, base: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    row = {
        "prompt": "a",
        "completion": "b",
        "when": datetime.date(2030, 1, 1),
        "raw": b"\xff",
        "nested": {"x": [None, 1.5]},
    }
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    result = run(tmp_path, base, tmp_path / "rows.parquet", split={"test": None, "validation_fraction": 0})
    (line,) = lines_of(result.outputs["dataset"], "train.jsonl")
    assert line["columns"]["when"] == '"2030-01-01"'
    assert line["columns"]["nested"] == '{"x": [null, 1.5]}'


def test_what_only_late_rows_have_is_read_or_said(tmp_path: Path, base: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    early: list[dict[str, Any]] = [{"messages": chat}] * 120
    critic: list[Any] = [chat[0], {"role": "critic", "content": "no"}, chat[1]]
    late: list[dict[str, Any]] = [
        {"messages": chat, "system": "Be brief."},
        {"messages": chat, "images": ["cat.png"]},
        {"messages": critic},
    ]
    result = run(tmp_path, base, write(tmp_path / "data", train=[*early, *late]), split={"test": None})
    assert lines_of(result.outputs["dataset"], "train.jsonl")[120]["messages"][0]["content"] == "Be brief."
    notes = result.facts["dataset_notes"]
    assert "images: a column with this name is filled and not read" in notes
    assert "role 'critic': its turns are context" in notes
    assert "(train.jsonl line 123)" in notes


def test_labels_of_which_none_is_wanted_are_told(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=[{"prompt": "a", "completion": "b", "label": False}])
    settings = DatasetSettings.model_validate({"reference": str(data), "split": {"test": None}})
    with pytest.raises(UserFault, match="none of the 1 labelled answers is wanted"):
        prepare(context_of(tmp_path, PrepareSettings(base_model=str(base), dataset=settings, learns="labels")))


def test_a_limit_of_one_bad_row_is_said_as_a_number(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "data", train=[*rows(*map(str, range(12))), *rows(" ", "\n")], test=rows("c"))
    assert "at most 1 are left out" in reasons(tmp_path, base, data)[-1].message
