"""Judges with a language model in this process, by its token probabilities, never by generated text.

`likelihood` asks no question. It scores a text by its log-likelihood after an instruction to follow the principle, minus
that after an instruction to do the opposite; what is likely under both cancels out. It works with models that are far too
small to answer a question.

`question` asks which of two texts is better, in both orders.

This is the only module of the feedback service that imports torch; import it in a child process only.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import Cache

from schemas.lines import Message
from schemas.recipes.feedback import Rubric
from services.chassis.storage.sources.models import brings_code
from services.feedback.judges import prompts
from services.feedback.judges.judge import Orders, TextToJudge, Tick
from services.language_models.chats import render, token_ids
from services.language_models.loading import load_causal, load_tokenizer
from services.language_models.logits import rows_of_logits
from services.language_models.padding import pad_rows
from services.language_models.precision import compute_dtype, device

_TURN = "Write the reply."
"""The user turn before the judged text, which is the model's answer to it. Instruction-tuned models hardly ever see answers
without a question: without this turn the same principles distinguish good from bad replies less often."""
_PAD = 0
"""The padding token; what a model computes for it is never read."""


class ModelUnfit(Exception):
    """The model in the folder cannot be used as a judge; the message says why."""


class LocalModel:
    """A causal language model and its tokenizer, in bf16 if the hardware supports it."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        """Load the model. Raises ModelUnfit if `folder` has no causal language model that can be loaded safely."""
        self._device = device()
        try:
            self._tokenizer = load_tokenizer(folder)
            self._model = load_causal(folder, compute_dtype("auto", self._device))
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            why = "it needs its own code, which is never run" if brings_code(folder) else type(error).__name__
            raise ModelUnfit(f"no causal language model can be loaded from it ({why})") from error
        self._model.to(self._device).eval()
        self._batch_size = batch_size
        self._longest = getattr(self._model.config, "max_position_embeddings", None)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a chat up to where the assistant's answer begins.

        A template that takes no system turn gets all turns as one; without a template they become paragraphs.
        """
        return self.tokens([render(self._tokenizer, messages, fallback="one turn")])[0]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without special ones."""
        return token_ids(self._tokenizer, texts)

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text as a complete answer: with the end token, so that stopping early counts, too."""
        end = self._tokenizer.eos_token_id
        return [ids if end is None else [*ids, end] for ids in self.tokens(texts)]

    def letter_tokens(self, letter: str) -> list[int]:
        """The tokens for `letter`, with or without a space before it. Raises ModelUnfit if there is none."""
        found = {ids[0] for ids in self.tokens([letter, f" {letter}"]) if len(ids) == 1}
        if not found:
            raise ModelUnfit(f"its tokenizer has no single token for {letter}, so it cannot answer a question with one")
        return sorted(found)

    @torch.inference_mode()
    def mean_log_likelihoods(
        self, prompt: Sequence[int], texts: Sequence[Sequence[int]], step: Callable[[int], None]
    ) -> list[float | None]:
        """log p(text | prompt) / tokens, for each text; None for texts that are empty or too long for the model.

        The prompt is the same for all texts, so it is computed once. `step` is called with the size of each batch.
        """
        read = self._read(prompt[:-1])
        found: list[float | None] = [None] * len(texts)
        for indexes in self._batches(texts, len(prompt), every_position=True):
            step(len(indexes))
            batch = pad_rows([[prompt[-1], *texts[index]] for index in indexes], _PAD, "right", self._device)
            rows = batch.ids  # without the mask: causal attention hides padding at the end from the text
            cache = copy.deepcopy(read)
            if cache is not None:
                cache.batch_repeat_interleave(len(indexes))
            logits = self._model(input_ids=rows[:, :-1], past_key_values=cache, use_cache=True).logits.float()
            losses = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none").view(len(indexes), -1)
            for row, index in enumerate(indexes):
                found[index] = -float(losses[row, : len(texts[index])].mean())
        return found

    @torch.inference_mode()
    def next_tokens(
        self, prompts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], step: Callable[[int], None]
    ) -> list[list[float] | None]:
        """For each prompt the probability that a token of each list comes next; None for prompts that are too long."""
        found: list[list[float] | None] = [None] * len(prompts)
        for indexes in self._batches(prompts, 0, every_position=False):
            step(len(indexes))
            batch = pad_rows([prompts[index] for index in indexes], _PAD, "left", self._device)
            given = {"input_ids": batch.ids, "attention_mask": batch.mask, "position_ids": batch.positions}
            logits = self._model(**given, use_cache=False, logits_to_keep=1).logits[:, -1].float()
            probabilities = logits.softmax(-1)
            for row, index in enumerate(indexes):
                found[index] = [float(probabilities[row, ids].sum()) for ids in tokens]
        return found

    def _read(self, prompt: Sequence[int]) -> Cache | None:
        """The cached keys and values of a prompt; None for an empty one."""
        if not prompt:
            return None
        ids = torch.tensor([list(prompt)], device=self._device)
        cache = self._model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        if not isinstance(cache, Cache):
            raise ModelUnfit(f"its cache is {type(cache).__name__} instead of keys and values; name an attention model")
        return cache

    def _batches(self, rows: Sequence[Sequence[int]], before: int, *, every_position: bool) -> Iterator[list[int]]:
        """Indexes of `rows` in batches of similar length, to limit padding; empty and too long rows are left out."""
        fitting = [
            index for index, row in enumerate(rows) if row and before + len(row) <= (self._longest or before + len(row))
        ]
        fitting.sort(key=lambda index: (len(rows[index]), index))
        vocabulary = self._model.config.get_text_config().vocab_size
        batch: list[int] = []
        for index in fitting:
            positions = len(rows[index]) if every_position else 1
            if batch and len(batch) >= min(self._batch_size, rows_of_logits(positions, vocabulary)):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


class LikelihoodJudge:
    """Scores a text by its mean log-likelihood per token under the principle minus that under the opposite, in nats."""

    def __init__(self, name: str, model: LocalModel, rubric: Rubric) -> None:
        self.name, self._model = name, model
        self._prompts = [
            model.prompt([Message(role="system", content=principle), Message(role="user", content=_TURN)])
            for principle in (rubric.principle, rubric.opposite)
        ]

    def score(self, texts: Sequence[TextToJudge], tick: Tick) -> list[float | None]:
        """Score the texts alone, without their prompts; equal texts have equal scores and are computed once."""
        different = list(dict.fromkeys(text.text for text in texts))
        step = _steps(tick, 2 * len(different))
        tokens = self._model.answers(different)
        wanted, unwanted = (self._model.mean_log_likelihoods(prompt, tokens, step) for prompt in self._prompts)
        scores = {
            text: None if one is None or other is None else one - other
            for text, one, other in zip(different, wanted, unwanted, strict=True)
        }
        return [scores[text.text] for text in texts]


class QuestionJudge:
    """Asks for letters and digits and reads the probabilities of their tokens."""

    def __init__(self, name: str, model: LocalModel, rubric: Rubric) -> None:
        self.name, self._model, self._rubric = name, model, rubric

    def score(self, texts: Sequence[TextToJudge], tick: Tick) -> list[float | None]:
        """Mean grade, 1 to 5, under the probabilities of the digits."""
        questions = [prompts.grading(self._rubric, text) for text in texts]
        read = self._ask(questions, prompts.GRADES, tick)
        return [None if found is None else prompts.expected_grade(found) for found in read]

    def compare(self, pairs: Sequence[tuple[TextToJudge, TextToJudge]], tick: Tick) -> list[Orders]:
        """Compare each pair with two questions, one for each order."""
        questions = prompts.both_orders(self._rubric, pairs)
        read = self._ask(questions, prompts.LETTERS, tick)
        return prompts.orders([None if found is None else prompts.preference(found) for found in read])

    def _ask(
        self, questions: Sequence[tuple[Message, ...]], choices: Sequence[str], tick: Tick
    ) -> list[dict[str, float] | None]:
        prompts = [self._model.prompt(question) for question in questions]
        tokens = [self._model.letter_tokens(choice) for choice in choices]
        found = self._model.next_tokens(prompts, tokens, _steps(tick, len(questions)))
        return [None if one is None else dict(zip(choices, one, strict=True)) for one in found]


def _steps(tick: Tick, of: int) -> Callable[[int], None]:
    """A callback for each batch that reports the number of texts done before it."""
    done = 0

    def step(size: int) -> None:
        nonlocal done
        tick(done, of)
        done += size

    return step
