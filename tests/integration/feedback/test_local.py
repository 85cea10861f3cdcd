"""The local judge on a tiny random model: what it computes equals the plain definition, and batching changes nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.lines import Message
from schemas.recipes.feedback import Rubric
from services.chassis.executor.child import UserFault
from services.chassis.storage.references import folder_digest
from services.feedback.judges import local, prompts
from services.feedback.judges.choose import Chosen, choose_judge
from services.feedback.judges.judge import TextToJudge
from services.feedback.judges.local import LikelihoodJudge, LocalModel, QuestionJudge
from tests.feedback import Step, quiet

RUBRIC = Rubric(principle="Be kind and say what you will do.", opposite="Be rude.")
TEXTS = ["Thank you, we will look.", "No.", "It may be something or other, hard to say.", "Thanks!", "Grüße"]


@pytest.fixture(autouse=True)
def _in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that two ways to compute the same can be compared closely."""
    monkeypatch.setattr(local, "compute_dtype", lambda *_: torch.float32)


def judged(texts: Sequence[str]) -> list[TextToJudge]:
    return [TextToJudge((Message(role="user", content="help"),), {}, text) for text in texts]


class Plain:
    """The definition, one text at a time, without cache and batches."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def log_probabilities(self, messages: list[dict[str, str]], more: str = "") -> tuple[Any, int]:
        """Log-probabilities of the next token at every position of the chat and `more`; the length of the chat."""
        chat = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before = self.tokenizer(chat, add_special_tokens=False)["input_ids"]
        after = self.tokenizer(more, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = self.model(torch.tensor([before + after])).logits[0]
        return logits.log_softmax(-1), len(before)

    def mean(self, system: str, text: str) -> float:
        """log p(text and its end | system) per token."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": local._TURN}]
        found, start = self.log_probabilities(messages, text + self.tokenizer.eos_token)
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        return sum(float(found[start - 1 + place, token]) for place, token in enumerate(ids)) / len(ids)


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Plain:
    return Plain(tiny_model)


def test_likelihood_is_the_mean_under_the_principle_minus_that_under_the_opposite(tiny_model: Path, plain: Plain) -> None:
    expected = [plain.mean(RUBRIC.principle, text) - plain.mean(RUBRIC.opposite, text) for text in TEXTS]
    assert max(expected) - min(expected) > 1e-3
    found = LikelihoodJudge("x", LocalModel(tiny_model, 16), RUBRIC).score(judged(TEXTS), quiet)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_scores_do_not_depend_on_who_shares_a_batch(tiny_model: Path, batch_size: int) -> None:
    together = LikelihoodJudge("x", LocalModel(tiny_model, 16), RUBRIC).score(judged(TEXTS), quiet)
    apart = LikelihoodJudge("x", LocalModel(tiny_model, batch_size), RUBRIC).score(judged(TEXTS), quiet)
    assert apart == pytest.approx(together, abs=1e-5)


def test_a_memory_limit_makes_batches_smaller_and_changes_nothing_else(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = LikelihoodJudge("x", LocalModel(tiny_model, 16), RUBRIC).score(judged(TEXTS), quiet)
    monkeypatch.setattr(local, "rows_of_logits", lambda positions, vocabulary: 1)
    sizes: list[int] = []
    found = LikelihoodJudge("x", LocalModel(tiny_model, 16), RUBRIC).score(
        judged(TEXTS), lambda done, _: sizes.append(done)
    )
    assert found == pytest.approx(together, abs=1e-5)
    assert sizes == list(range(2 * len(TEXTS)))


def test_equal_texts_are_computed_once_and_score_alike(tiny_model: Path) -> None:
    totals: set[int] = set()
    model = LocalModel(tiny_model, 16)
    one, other, again = LikelihoodJudge("x", model, RUBRIC).score(
        judged(["No.", "Yes.", "No."]), lambda _, of: totals.add(of)
    )
    assert one == again != other
    assert totals == {4}


@pytest.mark.parametrize("way", [LikelihoodJudge, QuestionJudge])
def test_a_model_none_of_whose_answers_could_be_read_leaves_nothing_to_score(
    tiny_model: Path, way: type[LikelihoodJudge | QuestionJudge]
) -> None:
    assert way("x", LocalModel(tiny_model, 2), RUBRIC).score([], quiet) == []


def test_a_text_that_is_too_long_for_the_model_is_no_number(tiny_model: Path) -> None:
    found = LikelihoodJudge("x", LocalModel(tiny_model, 16), RUBRIC).score(judged(["No.", "long " * 400]), quiet)
    assert found[0] is not None
    assert found[1] is None


def test_the_same_principle_twice_tells_nothing_apart(tiny_model: Path) -> None:
    rubric = Rubric(principle="Be kind.", opposite="Be kind.")
    found = LikelihoodJudge("x", LocalModel(tiny_model, 16), rubric).score(judged(TEXTS), quiet)
    assert found == pytest.approx([0.0] * len(TEXTS), abs=1e-6)


def test_a_question_is_answered_by_the_probabilities_of_the_letters_in_both_orders(tiny_model: Path, plain: Plain) -> None:
    pairs = [(judged(TEXTS)[0], judged(TEXTS)[1]), (judged(TEXTS)[2], judged(TEXTS)[3])]
    expected = []
    for pair in pairs:
        for one, other in (pair, (pair[1], pair[0])):
            messages = [turn.model_dump() for turn in prompts.comparison(RUBRIC, one, other.text)]
            found, _ = plain.log_probabilities(messages)
            a, b = (float(found[-1, plain.tokenizer(letter)["input_ids"][0]].exp()) for letter in "AB")
            expected.append((a - b) / (a + b))
    orders = QuestionJudge("x", LocalModel(tiny_model, 3), RUBRIC).compare(pairs, quiet)
    read = [value for one in orders for value in (one.forward, one.backward)]
    assert read == pytest.approx([expected[0], -expected[1], expected[2], -expected[3]], abs=1e-5)


def test_a_grade_is_the_mean_under_the_probabilities_of_the_digits(tiny_model: Path, plain: Plain) -> None:
    (text,) = judged(TEXTS[:1])
    found, _ = plain.log_probabilities([turn.model_dump() for turn in prompts.grading(RUBRIC, text)])
    weights = [float(found[-1, plain.tokenizer(digit)["input_ids"][0]].exp()) for digit in "12345"]
    expected = sum(grade * weight for grade, weight in zip(range(1, 6), weights, strict=True)) / sum(weights)
    assert QuestionJudge("x", LocalModel(tiny_model, 3), RUBRIC).score([text], quiet) == [pytest.approx(expected, abs=1e-5)]


def template(tiny_model: Path, folder: Path, chat_template: str | None) -> LocalModel:
    """The tiny model with another chat template."""
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    return LocalModel(folder, 4)


CHAT = [Message(role="system", content="Be kind."), Message(role="user", content="Hi")]


def test_a_template_without_system_turns_gets_the_principle_in_the_users_turn(tiny_model: Path, tmp_path: Path) -> None:
    without = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"
    )
    model = template(tiny_model, tmp_path, without)
    assert model.prompt(CHAT) == model.tokens(["<Be kind.\n\nHi>"])[0]


def test_a_model_without_a_template_reads_the_turns_as_paragraphs(tiny_model: Path, tmp_path: Path) -> None:
    model = template(tiny_model, tmp_path, None)
    assert model.prompt(CHAT) == model.tokens(["Be kind.\n\nHi\n\n"])[0]


def chosen(step: Step, judge: dict[str, Any], base_model: str = "base") -> Chosen:
    context = step.context("label", [], {"judge": {"kind": "local", **judge}}, base_model)
    return choose_judge(context.task.settings.feedback, base_model, context.task)  # type: ignore[union-attr]


def test_the_jobs_base_model_is_the_judge_unless_another_is_named(step: Step, tiny_model: Path) -> None:
    assert chosen(step, {}, str(tiny_model)).judge.name == "local/likelihood:model"
    assert chosen(step, {"model": str(tiny_model), "scoring": "question"}).judge.name == "local/question:model"


def test_the_judges_digest_is_part_of_the_result(step: Step, tiny_model: Path) -> None:
    facts = chosen(step, {}, str(tiny_model)).facts
    assert facts == {"judge": "local/likelihood:model", "judge_model_sha256": folder_digest(tiny_model)}


@pytest.mark.parametrize(("judge", "field"), [({"model": "/no/such"}, "feedback.judge.model"), ({}, "base_model")])
def test_a_model_that_is_not_there_is_a_fault_of_the_request(step: Step, judge: dict[str, Any], field: str) -> None:
    with pytest.raises(UserFault) as fault:
        chosen(step, judge, "/no/such")
    (reason,) = fault.value.reasons
    assert (reason.field, reason.value) == (field, "'/no/such'")


def test_a_folder_that_holds_no_model_is_a_fault_of_the_request(step: Step, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserFault, match="no causal language model can be loaded"):
        chosen(step, {"model": str(tmp_path)})


def test_weights_as_pickles_are_refused(step: Step, tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserFault, match="no causal language model can be loaded"):
        chosen(step, {"model": str(tmp_path)})
