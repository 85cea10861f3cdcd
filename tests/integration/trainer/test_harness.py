"""Tasks of lm-evaluation-harness are measured by the harness itself, on the model as the rest of an evaluation serves it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.harness import HarnessSettings
from schemas.steps import EvaluateSettings, PrepareSettings
from services.chassis.reports.contents import contents
from services.language_models.chat_format.chat import Chat
from services.trainer.harness.model import ServedModel
from services.trainer.modelling.base import load_base
from services.trainer.steps.evaluate import evaluate
from services.trainer.steps.prepare import prepare
from tests.changed_adapter import changed_adapter
from tests.harness_tasks import CHOICES, QUESTIONS, answer_task, choice_task, write_task
from tests.trainer import context_of, lines_of

CPU = torch.device("cpu")


def prepared(
    home: Path, base: Path, *tasks: Path | str, rows: list[dict[str, str]] | None = None, **harness: Any
) -> StepResult:
    """Run a step of kind prepare that also stores tasks."""
    data = home / "data"
    data.mkdir(exist_ok=True)
    lines = rows or [{"prompt": row["question"], "completion": row["answer"]} for row in QUESTIONS]
    for split in ("train", "validation", "test"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    settings = PrepareSettings(
        base_model=str(base), dataset=DatasetSettings(reference=str(data)), max_length=128,
        harness=HarnessSettings(tasks=tuple(map(str, tasks)), **harness),
    )  # fmt: skip
    return prepare(context_of(home, settings))


def measured(home: Path, base: Path, data: ArtifactRef, *tasks: Path | str, adapter: ArtifactRef | None = None,
             **harness: Any) -> StepResult:  # fmt: skip
    """Run a step of kind evaluate on what `prepared` stored."""
    evaluation = EvaluationSettings(
        metrics=("loss",), precision="fp32", max_new_tokens=6, samples=1,
        harness=HarnessSettings(tasks=tuple(map(str, tasks)), **harness),
    )  # fmt: skip
    inputs = {"dataset": data} | ({"adapter": adapter} if adapter else {})
    return evaluate(context_of(home, EvaluateSettings(base_model=str(base), evaluation=evaluation), inputs))


def both(home: Path, base: Path, *tasks: Path | str, **harness: Any) -> StepResult:
    data = prepared(home, base, *tasks, **harness).outputs["dataset"]
    return measured(home, base, data, *tasks, **harness)


def test_choices_are_scored_as_the_model_is_served(tmp_path: Path, base: Path) -> None:
    result = both(tmp_path, base, choice_task(tmp_path / "tasks"))
    model, chat = load_base(base, torch.float32, CPU), Chat(base)
    best = []
    for line in lines_of(result.outputs["predictions"], "harness/colours.jsonl"):
        messages = [{"role": "user", "content": f"Which colour has {line['doc']['thing']}?"}]
        prompt = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        expected = []
        for choice in line["doc"]["choices"]:
            asked, ids = (chat.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, choice))
            with torch.inference_mode():
                labels = torch.tensor([[-100] * len(asked) + ids])
                expected.append(-len(ids) * model(torch.tensor([[*asked, *ids]]), labels=labels).loss.item())
        assert [score for ((score, _),) in line["resps"]] == pytest.approx(expected, rel=1e-4)
        best.append(expected.index(max(expected)) == line["doc"]["right"])
    assert result.metrics["harness_colours_acc"] == sum(best) / len(best)


def test_answers_are_generated_as_the_model_is_served(tmp_path: Path, base: Path) -> None:
    task = answer_task(tmp_path / "tasks", generation_kwargs={"until": [], "max_gen_toks": 6}, num_fewshot=0)
    result = both(tmp_path, base, task)
    predictions = lines_of(result.outputs["predictions"], "predictions.jsonl")[:3]
    answers = [line["resps"][0][0] for line in lines_of(result.outputs["predictions"], "harness/sums.jsonl")]
    assert answers == [line["greedy"] for line in predictions]


def test_an_answer_ends_before_the_first_stop_text_of_the_task(tmp_path: Path, base: Path) -> None:
    whole = both(
        tmp_path / "a", base, answer_task(tmp_path / "a" / "t", generation_kwargs={"until": [], "max_gen_toks": 6})
    )
    answers = [line["resps"][0][0] for line in lines_of(whole.outputs["predictions"], "harness/sums.jsonl")]
    stop = answers[0][2]
    task = answer_task(tmp_path / "b" / "t", generation_kwargs={"until": [stop], "max_gen_toks": 6})
    cut = both(tmp_path / "b", base, task)
    lines = lines_of(cut.outputs["predictions"], "harness/sums.jsonl")
    assert [line["resps"][0][0] for line in lines] == [answer.split(stop)[0] for answer in answers]


def test_an_answer_is_not_generated_beyond_a_stop_text_unless_it_stands_in_a_thought(tmp_path: Path, base: Path) -> None:
    chat, context = Chat(base), context_of(tmp_path, EvaluateSettings(base_model=str(base)))
    model = ServedModel(context, chat, load_base(base, torch.float32, CPU), chats=True, batch_size=1, seed=0)

    def ends(answer: str, prompt: str = "") -> bool:
        ended = model.ends(["\n", ""], [prompt])
        assert ended is not None
        return ended(chat.tokenizer(answer, add_special_tokens=False)["input_ids"])

    assert ends("one\ntwo")
    assert not ends("one two")
    assert not ends("<think>one\ntwo")
    assert not ends("one\ntwo", "<think>\n")
    assert not ends("<think>one\n</think>two")
    assert ends("<think>one\n</think>two\nthree")
    assert model.ends([], [""]) is None


def test_a_task_that_repeats_its_questions_gets_an_answer_of_its_own_for_each(tmp_path: Path, base: Path) -> None:
    sampled = {"until": [], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    result = both(tmp_path, base, answer_task(tmp_path / "tasks", generation_kwargs=sampled, repeats=3))
    for line in lines_of(result.outputs["predictions"], "harness/sums.jsonl"):
        assert len(set(line["resps"][0])) == 3


def test_metrics_carry_their_protocol_and_intervals(tmp_path: Path, base: Path) -> None:
    tasks = [choice_task(tmp_path / "tasks"), answer_task(tmp_path / "tasks")]
    result = both(tmp_path, base, *tasks, num_fewshot=2, limit=2, seed=3)
    metrics = result.metrics
    assert (metrics["harness_sums_rows"], metrics["harness_sums_num_fewshot"], metrics["harness_sums_prompts_cut"]) == (
        2,
        2,
        0,
    )
    assert {"harness_sums_exact_match", "harness_sums_exact_match_low", "harness_sums_exact_match_high"} <= set(metrics)
    assert {"harness_colours_acc", "harness_colours_acc_norm_low"} <= set(metrics)
    assert "2 of 3 rows, 2 examples each; prompts as chats, seed 3" in result.facts["harness_sums"]
    protocol = json.loads((Path(result.outputs["predictions"].uri) / "harness" / "protocol.json").read_text())
    assert protocol["colours"]["version"] == 1.5
    assert len(protocol["colours"]["task_sha256"]) == len(protocol["colours"]["data_sha256"]["test"]) == 64
    assert protocol["colours"]["task_sha256"] in result.facts["harness_colours"]
    written = json.loads((Path(result.outputs["predictions"].uri) / "metrics.json").read_text())
    assert written == metrics
    shown = contents(result).samples[len(QUESTIONS) :]
    assert [sample.prompt.partition("\n")[0] for sample in shown] == [
        f"{name}, row {row}" for name in ("colours", "sums") for row in (0, 1)
    ]
    assert {label.partition(",")[0] for label, _ in shown[0].texts} == {"expected", "choice", "most likely choice"}


def test_examples_are_earlier_turns_of_the_chat_and_drawn_by_the_seed(tmp_path: Path, base: Path) -> None:
    task = answer_task(tmp_path / "tasks")
    prompts: dict[int, str] = {}
    for seed in (0, 0, 1):
        result = both(tmp_path, base, task, num_fewshot=2, seed=seed)
        (line, *_) = lines_of(result.outputs["predictions"], "harness/sums.jsonl")
        text = line["arguments"][0][0]
        assert prompts.setdefault(seed, text) == text
    assert prompts[0] != prompts[1]
    assert prompts[0].count("<|im_start|>user") == 3
    assert prompts[0].count("<|im_start|>assistant") == 3


def test_the_adapter_is_measured_on_the_data_that_the_base_was_measured_on(tmp_path: Path, base: Path) -> None:
    task = choice_task(tmp_path / "tasks")
    data = prepared(tmp_path, base, task).outputs["dataset"]
    first = measured(tmp_path, base, data, task)
    choice_task(tmp_path / "tasks", CHOICES[:1])
    second = measured(tmp_path, base, data, task, adapter=changed_adapter(tmp_path, base))
    assert first.facts["harness_colours"] == second.facts["harness_colours"]
    assert set(first.metrics) == set(second.metrics)
    scores = [
        [line["resps"] for line in lines_of(made.outputs["predictions"], "harness/colours.jsonl")]
        for made in (first, second)
    ]
    assert len(scores[0]) == len(scores[1]) == len(CHOICES)
    assert scores[0] != scores[1]


def test_plain_texts_and_perplexities_are_measured_too(tmp_path: Path, base: Path) -> None:
    text = {
        "task": "texts",
        "output_type": "loglikelihood_rolling",
        "test_split": "test",
        "doc_to_text": "",
        "doc_to_target": "text",
    }
    rows = [{"text": "word " * 300}, {"text": "a text"}]
    tasks = [choice_task(tmp_path / "tasks", gen_prefix="It is"), write_task(tmp_path / "tasks", text, test=rows)]
    metrics = both(tmp_path, base, *tasks, chat=False, limit=2).metrics
    assert (metrics["harness_texts_word_perplexity"] or 0) > (metrics["harness_texts_byte_perplexity"] or 0) > 1
    assert (metrics["harness_texts_byte_perplexity_low"] or 0) <= (metrics["harness_texts_byte_perplexity"] or 0)
    assert metrics["harness_colours_acc"] is not None


def test_prompts_beyond_what_the_model_reads_are_cut_and_counted(tmp_path: Path, base: Path) -> None:
    rows = [{**CHOICES[0], "thing": "a long thing " * 100}, *CHOICES]
    metrics = both(tmp_path, base, choice_task(tmp_path / "tasks", rows)).metrics
    assert (metrics["harness_colours_rows"], metrics["harness_colours_prompts_cut"]) == (5, 1)


def test_a_file_includes_others_and_a_folder_in_the_hubs_layout_is_data(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "tasks"
    choice_task(folder)
    (folder / "data").mkdir()
    (folder / "data" / "README.md").write_text(
        "---\nconfigs:\n- config_name: hard\n  data_files:\n  - {split: test, path: hard.jsonl}\n---\n"
    )
    (folder / "data" / "hard.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHOICES[:2]))
    task = folder / "hard.yaml"
    task.write_text("include: colours.yaml\ntask: hard\ndataset_path: ./data\ndataset_name: hard\ndataset_kwargs: null\n")
    assert both(tmp_path, base, task).metrics["harness_hard_rows"] == 2
