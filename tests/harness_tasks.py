"""Small task files of lm-evaluation-harness with their data, for tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

CHOICES = [{"thing": thing, "choices": ["red", "blue", "green"], "right": right} for thing, right in
           (("blood", 0), ("the sky", 1), ("grass", 2), ("the sea", 1))]  # fmt: skip
QUESTIONS = [{"question": f"{number} + 1?", "answer": f"So it is {number + 1}."} for number in range(6)]


def choice_task(folder: Path, rows: Sequence[dict[str, Any]] = CHOICES, **changes: Any) -> Path:
    """Write a task whose answers are chosen; return its file."""
    described = {
        "task": "colours", "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "Which colour has {{thing}}?",
        "doc_to_choice": "choices", "doc_to_target": "right", "metadata": {"version": 1.5},
    }  # fmt: skip
    return write_task(folder, described | changes, test=rows)


def answer_task(folder: Path, **changes: Any) -> Path:
    """Write a task whose answers are generated; return its file."""
    described = {
        "task": "sums", "output_type": "generate_until", "training_split": "train", "test_split": "test",
        "doc_to_text": "question", "doc_to_target": "{{answer.split()[-1]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6}, "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    return write_task(folder, described | changes, train=QUESTIONS, test=QUESTIONS[:3])


def write_task(folder: Path, described: dict[str, Any], **splits: Sequence[dict[str, Any]]) -> Path:
    """Write a task file with a data file for each split beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = described["task"]
    for split, rows in splits.items():
        (folder / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {split: f"{name}-{split}.jsonl" for split in splits}}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(files | described))
    return path
