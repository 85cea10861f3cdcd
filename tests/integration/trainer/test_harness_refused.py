"""A task of lm-evaluation-harness that cannot be measured, or would run code or read other files, is refused in `prepare`."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from schemas.reasons import Reason
from schemas.recipes.harness import HarnessSettings
from schemas.steps import SampleSettings
from services.chassis.executor.child import UserFault
from services.language_models.chat_format.chat import Chat
from services.trainer.harness import library
from services.trainer.harness.stored import store_tasks
from tests.harness_tasks import CHOICES, answer_task, choice_task
from tests.trainer import context_of

SECRET = "the content of somebody else's file"


def refused(home: Path, base: Path, *tasks: Path | str, limit: int | None = 1024, **harness: Any) -> Reason:
    settings = HarnessSettings(tasks=tuple(map(str, tasks)), **harness)
    context = context_of(home, SampleSettings(base_model=str(base)))
    with pytest.raises(UserFault) as raised:
        store_tasks(context, settings, Chat(base), limit, home / "stored")
    (reason,) = raised.value.reasons
    assert reason.remedy
    return reason


Changes = dict[str, Any]
BAD: dict[str, tuple[Changes, str]] = {
    "a group": ({"group": "all"}, "it describes a group of tasks"),
    "a list of tasks": ({"task": ["a", "b"]}, "it describes a group of tasks"),
    "a bad name": ({"task": "../a"}, "it has no name"),
    "a class": ({"class": "evil.Task"}, "its class is Python code"),
    "a data set of code": ({"custom_dataset": "evil"}, "its custom_dataset is Python code"),
    "a prompt library": ({"use_prompt": "/etc/x.yaml:a"}, "its use_prompt is Python code"),
    "answers that are run": ({"unsafe_code": True}, "it runs what the model writes"),
    "images": ({"doc_to_image": "image"}, "it has images or sounds"),
    "an unknown kind of answer": ({"output_type": "guess"}, "its output_type is unknown"),
    "an unknown setting": ({"docs_to_text": "a"}, "1 of its settings are not supported"),
    "code of a data set": ({"dataset_kwargs": {"trust_remote_code": True}}, "code of a data set is never run"),
    "an unknown setting of the data": ({"dataset_kwargs": {"data_dir": "/"}}, "settings in dataset_kwargs are not supported"),
    "no data": ({"dataset_path": None}, "it names no data set"),
    "no files": ({"dataset_kwargs": {}}, "its data: data_files are no names of files"),
    "a file that is missing": ({"dataset_kwargs": {"data_files": {"test": "none.jsonl"}}}, "its data: no such file or folder"),
    "a file outside the folders": ({"dataset_kwargs": {"data_files": {"test": "/etc/passwd"}}}, "its data: it is outside the"),
    "a folder as data file": ({"dataset_kwargs": {"data_files": {"test": "."}}}, "its data: data_files are no names of files"),
    "no split to measure": ({"test_split": None}, "it names neither a test_split nor a validation_split"),
    "a split that is missing": ({"test_split": "exam"}, "none of the 1 splits of its data is 'exam'"),
    "a column that is missing": ({"doc_to_text": "{{stuff}}"}, "cannot ask or count it with its data (UndefinedError)"),
    "a template that reaches for Python": (
        {"doc_to_text": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}, "cannot ask or count it with its data (SecurityError)",
    ),
    "a template that is broken": ({"doc_to_text": "{{ thing"}, "(TemplateSyntaxError)"),
    "a metric of the hub": ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "a metric in it is code of the hub"),
    "an unknown metric": ({"metric_list": [{"metric": "elo"}]}, "cannot ask or count it with its data (ValueError)"),
    "a filter of code": (
        {"filter_list": [{"name": "a", "filter": [{"function": "custom", "filter_fn": "x"}]}]}, "a filter in it is Python code",
    ),
    "a decoder that is not the service's": ({"generation_kwargs": {"num_beams": 4}}, "settings in generation_kwargs are not"),
    "a text with a control token": ({"description": "<|im_end|>"}, "a prompt of it is no chat"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_task_that_cannot_be_measured_is_refused_by_its_cause(tmp_path: Path, base: Path, case: str) -> None:
    changes, words = BAD[case]
    task = choice_task(tmp_path / "tasks")
    described = yaml.safe_load(task.read_text())
    task.write_text(yaml.safe_dump(described | changes))
    reason = refused(tmp_path, base, task)
    assert reason.field == "evaluation.harness.tasks"
    assert words in reason.message


def test_python_code_that_a_task_names_is_never_run(tmp_path: Path, base: Path) -> None:
    task, mark = choice_task(tmp_path / "tasks"), tmp_path / "ran"
    (task.parent / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef rows(docs): return docs\n")
    text = task.read_text()
    for tag in ("!function evil.rows", "!!python/name:os.system", f"!!python/object/apply:os.system ['touch {mark}']"):
        task.write_text(f"{text}process_docs: {tag}\n")
        assert "it names Python code, which is never run" in refused(tmp_path, base, task).message
    assert not mark.exists()


def test_a_template_cannot_call_into_python(tmp_path: Path, base: Path) -> None:
    mark = tmp_path / "ran"
    call = f"{{{{ cycler.__init__.__globals__.os.mknod('{mark}') }}}}"
    assert "SecurityError" in refused(tmp_path, base, choice_task(tmp_path / "tasks", description=call)).message
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("no_such_task", "0.4.13 has no task of this name"), ("tasks/none.yaml", "no such file or folder"),
     ("/etc/task.yaml", "it is outside the folders that jobs may name"), ("hellaswag", "it names Python code"),
     ("mmlu", "it describes a group of tasks")],
)  # fmt: skip
def test_a_name_that_is_no_task_is_refused(
    tmp_path: Path, base: Path, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative path is one of the working folder, which must be an allowed one here
    assert words in refused(tmp_path, base, name).message


def test_an_included_file_outside_the_folders_is_refused(tmp_path: Path, base: Path) -> None:
    task = choice_task(tmp_path / "tasks")
    task.write_text("include: /etc/passwd\n" + task.read_text())
    assert "a file that it includes cannot be read: it is outside the folders" in refused(tmp_path, base, task).message
    task.write_text("include: colours.yaml\n" + task.read_text().split("\n", 1)[1])
    assert "its files include each other" in refused(tmp_path / "b", base, task).message


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "1: a\n", "\x00", "a" * 2**21])
def test_a_file_that_is_no_task_file_is_refused_without_its_content(tmp_path: Path, base: Path, text: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(f"{text}\n# {SECRET}")
    reason = refused(tmp_path, base, file)
    assert reason.message.startswith("it is no ")
    assert SECRET not in str(reason)


def test_more_examples_than_there_are_and_answers_without_room_are_refused(tmp_path: Path, base: Path) -> None:
    assert "(ValueError)" in refused(tmp_path / "a", base, answer_task(tmp_path / "tasks"), num_fewshot=7).message
    long = answer_task(tmp_path / "tasks", generation_kwargs={"until": [], "max_gen_toks": 2000})
    assert "answers of 2000 tokens, and the model reads 1024" in refused(tmp_path / "b", base, long).message


def test_a_right_answer_that_is_none_of_the_choices_is_refused_by_its_row(tmp_path: Path, base: Path) -> None:
    task = choice_task(tmp_path / "tasks", [CHOICES[0], {**CHOICES[1], "right": 3}])
    assert "the right answer of row 2 is none of its 3 choices" in refused(tmp_path, base, task).message


def test_two_tasks_of_one_name_are_refused(tmp_path: Path, base: Path) -> None:
    tasks = choice_task(tmp_path / "a"), choice_task(tmp_path / "b", CHOICES[:1])
    assert "its task has the name of another one" in refused(tmp_path, base, *tasks).message
    with pytest.raises(ValidationError, match="the task a is named twice"):
        HarnessSettings(tasks=("a", "a"))


def test_without_the_package_the_request_is_refused_with_what_to_install(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_PACKAGE", "lm_eval_is_not_here")
    reason = refused(tmp_path, base, choice_task(tmp_path / "tasks"))
    assert (reason.field, "pip install 'neuroweaver[lm-eval]'" in reason.remedy) == ("evaluation.harness", True)
